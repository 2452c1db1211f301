#include "collective/gpu_coding.h"

#include <algorithm>
#include <utility>

#include "compress/fixed_length.h"
#include "core/error.h"
#include "core/round.h"
#include "cuda/layout.h"

namespace ronde {
namespace {

constexpr std::size_t kAligned = 256;

float* data_of(std::span<float> values) { return values.empty() ? nullptr : values.data(); }

}  // namespace

GpuCoding::GpuCoding(Summand summand, const GpuStream& stream)
    : Coding(std::move(summand)),
      stream_(stream),
      codec_(stream.device, *compressor().block_code()),
      steps_(stream.device, stream.handle) {}

std::byte* GpuCoding::begin(const Cut& cut) {
  cut_ = cut;
  take_memory();
  encode_values({.offset = 0, .count = own().offset});
  encode_values({.offset = own().end(), .count = summand_.values.size() - own().end()});
  return here_.data();
}

void GpuCoding::take_memory() {
  using Kind = cuda::Memory::Kind;
  const auto& [device, stream] = stream_;
  const std::size_t sums = cut_.longest ? (own().count + cut_.longest - 1) / cut_.longest : 0;
  const std::size_t flags = (sums + 1) * ranks();
  const std::size_t part = rounded(compressor().capacity(cut_.longest), kAligned);
  const auto cut = [&](std::byte* memory) {
    cuda::Layout layout(memory);
    payloads_ = layout.take<std::byte>(compressor().capacity(summand_.values.size()));
    parts_ = layout.take<std::byte>(part * ranks());
    total_ = layout.take<float>(cut_.longest);
    flags_ = layout.take<unsigned>(flags);
    return layout.bytes();
  };
  there_ = cuda::ScratchPool::of(device, Kind::device).take(stream, cut(nullptr));
  cut(there_.data());
  const std::size_t messages = rounded(cut_.messages, kAligned);
  here_ = cuda::ScratchPool::of(device, Kind::pinned)
              .take(stream, messages + flags * sizeof(unsigned));
  flags_here_ = reinterpret_cast<unsigned*>(here_.data() + messages);
  device.fill(stream, flags_, 0, flags * sizeof(unsigned));
}

std::byte* GpuCoding::place_of(const Range& range) const {
  return payloads_ + compressor().capacity(range.offset);
}

void GpuCoding::encode_values(const Range& range) {
  if (range.count == 0) return;
  codec_.encode(stream_.handle, summand_.values.data() + range.offset,
                {.count = range.count,
                 .payload = place_of(range),
                 .residual = data_of(residual(range)),
                 .draw = {key(), range.offset}});
}

Coding::Step GpuCoding::encode(const Range& segment, Payload& payload) {
  copy_here(segment, payload);
  return steps_.add();
}

Coding::Step GpuCoding::encode_sum(const Range& segment, std::span<const Payload> parts,
                                   Payload& sum) {
  const auto rank = static_cast<std::size_t>(summand_.rank);
  const std::size_t apart = rounded(compressor().capacity(cut_.longest), kAligned);
  std::vector<const void*> there(parts.size());
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (i == rank) {
      there[i] = summand_.values.data() + segment.offset;
    } else {
      there[i] = parts_ + i * apart;
      copy_there(segment, parts[i], static_cast<int>(i), parts_ + i * apart);
    }
  }
  codec_.encode(stream_.handle,
                {.parts = there, .own = rank, .factor = summand_.factor, .bad_scales = flags_},
                {.count = segment.count,
                 .payload = place_of(segment),
                 .residual = data_of(residual_of_sum(segment)),
                 .draw = {key(), segment.offset}},
                total_);
  copy_here(segment, sum);
  return add_step_with_flags();
}

Coding::Step GpuCoding::store_sum(const Range&, std::span<const Payload>) {
  throw Error("payloads of a fixed length are not gathered");
}

Coding::Step GpuCoding::decode(const Range& segment, const Payload& sum, int owner) {
  if (owner != summand_.rank) copy_there(segment, sum, owner, place_of(segment));
  return steps_.add();
}

Coding::Step GpuCoding::end() {
  for (std::size_t owner = 0; owner < ranks(); ++owner) {
    const Range& slice = cut_.slices[owner];
    if (slice.count)
      codec_.decode(stream_.handle, place_of(slice),
                    summand_.result.subspan(slice.offset, slice.count), Store::copy,
                    flags_ + owner);
  }
  return end_ = add_step_with_flags();
}

bool GpuCoding::passed(Step step) {
  if (!steps_.passed(step)) return false;
  for (; !findings_.empty() && findings_.front().step <= step; findings_.pop_front()) {
    const std::span flags(findings_.front().flags, ranks());
    const auto found = std::ranges::find_if(flags, [](unsigned flag) { return flag != 0; });
    if (found != flags.end())
      refuse(static_cast<int>(found - flags.begin()), FixedLength::kBadScale);
  }
  if (step == end_) {
    here_.mark_idle();
    there_.mark_idle();
  }
  return true;
}

void GpuCoding::copy_there(const Range& segment, const Payload& payload, int from, std::byte* to) {
  try {
    FixedLength::check_length(compressor(), segment.count, payload.length);
  } catch (const ArgumentError& error) {
    refuse(from, error.what());
  }
  stream_.device.copy(stream_.handle, to, payload.memory, payload.length);
}

void GpuCoding::copy_here(const Range& segment, Payload& payload) {
  payload.length = compressor().capacity(segment.count);
  stream_.device.copy(stream_.handle, payload.memory, place_of(segment), payload.length);
}

/// The flags of one sum, or of the end, are copied to the host; the next ones are behind them.
Coding::Step GpuCoding::add_step_with_flags() {
  if (!codec_.has_scales()) return steps_.add();
  stream_.device.copy(stream_.handle, flags_here_, flags_, ranks() * sizeof(unsigned));
  findings_.push_back({steps_.add(), flags_here_});
  flags_ += ranks();
  flags_here_ += ranks();
  return findings_.back().step;
}

}  // namespace ronde
