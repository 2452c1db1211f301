#include "collective/gpu_coding.h"

#include <utility>
#include <vector>

#include "compress/fixed_length.h"
#include "core/error.h"
#include "core/round.h"
#include "cuda/layout.h"

namespace ronde {
namespace {

constexpr std::size_t kAligned = 256;

float* data_of(std::span<float> values) { return values.empty() ? nullptr : values.data(); }

}  // namespace

GpuCoding::GpuCoding(Summand summand, const cuda::Queue& queue)
    : Coding(std::move(summand)),
      queue_(queue),
      codec_(queue.device, *compressor().block_code()),
      steps_(queue.device, queue.stream) {}

std::byte* GpuCoding::begin(const Cut& cut) {
  cut_ = cut;
  take_memory();
  encode_values({.offset = 0, .count = own().offset});
  encode_values({.offset = own().end(), .count = summand_.values.size() - own().end()});
  return messages_.data();
}

void GpuCoding::take_memory() {
  using Kind = cuda::Memory::Kind;
  const auto& [device, stream] = queue_;
  const std::size_t ranks = cut_.slices.size();
  const std::size_t sums = cut_.longest ? (own().count + cut_.longest - 1) / cut_.longest : 0;
  const auto layout = [&](std::byte* memory) {
    cuda::Layout layout(memory);
    payloads_ = layout.take<std::byte>(compressor().capacity(summand_.values.size()));
    parts_ = layout.take<std::byte>(part_bytes() * ranks);
    total_ = layout.take<float>(cut_.longest);
    return layout.bytes();
  };
  scratch_ = cuda::ScratchPool::of(device, Kind::device).take(stream, layout(nullptr));
  layout(scratch_.data());
  messages_ = cuda::ScratchPool::of(device, Kind::pinned).take(stream, cut_.messages);
  if (codec_.has_scales()) findings_.emplace(queue_, ranks, sums + 1);
}

std::byte* GpuCoding::place_of(const Range& range) const {
  return payloads_ + compressor().capacity(range.offset);
}

std::size_t GpuCoding::part_bytes() const {
  return rounded(compressor().capacity(cut_.longest), kAligned);
}

/// The first of those of all ranks is that of rank 0.
unsigned* GpuCoding::flag_of(std::size_t rank) const {
  return findings_ ? findings_->flags() + rank : nullptr;
}

void GpuCoding::encode_values(const Range& range) {
  if (range.count == 0) return;
  codec_.encode(queue_.stream, summand_.values.data() + range.offset,
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
  std::vector<const void*> there(parts.size());
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (i == rank) {
      there[i] = summand_.values.data() + segment.offset;
    } else {
      std::byte* const part = parts_ + i * part_bytes();
      copy_there(segment, parts[i], static_cast<int>(i), part);
      there[i] = part;
    }
  }
  codec_.encode(queue_.stream,
                {.parts = there, .own = rank, .factor = summand_.factor, .bad_scales = flag_of(0)},
                {.count = segment.count,
                 .payload = place_of(segment),
                 .residual = data_of(residual_of_sum(segment)),
                 .draw = {key(), segment.offset}},
                total_);
  copy_here(segment, sum);
  return add_finding();
}

Coding::Step GpuCoding::store_sum(const Range&, std::span<const Payload>) {
  throw Error("payloads of a fixed length are not gathered");
}

Coding::Step GpuCoding::decode(const Range& segment, const Payload& sum, int owner) {
  if (owner != summand_.rank) copy_there(segment, sum, owner, place_of(segment));
  return steps_.add();
}

Coding::Step GpuCoding::end() {
  for (std::size_t owner = 0; owner < cut_.slices.size(); ++owner) {
    const Range& slice = cut_.slices[owner];
    if (slice.count)
      codec_.decode(queue_.stream, place_of(slice),
                    summand_.result.subspan(slice.offset, slice.count), Store::copy,
                    flag_of(owner));
  }
  return end_ = add_finding();
}

bool GpuCoding::passed(Step step) {
  if (!steps_.passed(step)) return false;
  if (findings_) {
    if (const int rank = findings_->wrong(step); rank >= 0) refuse(rank, FixedLength::kBadScale);
  }
  if (end_ && step == end_) {
    messages_.mark_idle();
    scratch_.mark_idle();
    if (findings_) findings_->mark_idle();
  }
  return true;
}

void GpuCoding::copy_there(const Range& segment, const Payload& payload, int from, std::byte* to) {
  try {
    FixedLength::check_length(compressor(), segment.count, payload.length);
  } catch (const ArgumentError& error) {
    refuse(from, error.what());
  }
  queue_.device.copy(queue_.stream, to, payload.memory, payload.length);
}

void GpuCoding::copy_here(const Range& segment, Payload& payload) {
  payload.length = compressor().capacity(segment.count);
  queue_.device.copy(queue_.stream, payload.memory, place_of(segment), payload.length);
}

Coding::Step GpuCoding::add_finding() { return findings_ ? findings_->copy(steps_) : steps_.add(); }

}  // namespace ronde
