#include "collective/gpu_sparse_coding.h"

#include <algorithm>
#include <utility>

#include "compress/gpu_selection.h"
#include "core/error.h"
#include "core/round.h"
#include "cuda/layout.h"
#include "cuda/reduce.h"
#include "kernels/kernels.h"

namespace ronde {

using Kind = cuda::Memory::Kind;

GpuSparseCoding::GpuSparseCoding(Summand summand, const cuda::Queue& queue)
    : Coding(std::move(summand)), queue_(queue), steps_(queue.device, queue.stream) {}

std::byte* GpuSparseCoding::begin(const Cut& cut) {
  cut_ = cut;
  cut_segments();
  take_memory();
  if (!segments_.empty()) select();
  return messages_.data();
}

/// Each has room for any payload of it. Where payloads are gathered all slices are the same.
void GpuSparseCoding::cut_segments() {
  std::size_t room = 0;
  for (const auto& slice : cut_.slices) {
    for (std::size_t begin = slice.offset; begin < slice.end(); begin += cut_.longest) {
      if (!numbers_.emplace(begin, segments_.size()).second) continue;
      const std::size_t count = std::min(cut_.longest, slice.end() - begin);
      segments_.push_back({static_cast<cuda::u32>(begin), static_cast<cuda::u32>(count), room});
      room += rounded(compressor().capacity(count), kCacheLine);
    }
  }
}

void GpuSparseCoding::take_memory() {
  const auto& [device, stream] = queue_;
  const std::size_t count = summand_.values.size(), lengths = segments_.size();
  const auto* const last = segments_.empty() ? nullptr : &segments_.back();
  const std::size_t payloads = last ? last->payload + compressor().capacity(last->count) : 0;
  const auto layout = [&](std::byte* memory) {
    cuda::Layout layout(memory);
    entries_.positions = layout.take<cuda::u32>(count);
    entries_.values = layout.take<float>(count);
    entries_.room = static_cast<cuda::u32>(count);
    entries_.count = layout.take<cuda::u32>(1);
    selecting_ =
        layout.take<std::byte>(count ? compressor().gpu_selection()->scratch(device, count) : 0);
    reading_ = layout.take<std::byte>(cuda::read_payload_scratch(cut_.longest));
    payloads_ = layout.take<std::byte>(payloads);
    part_ = layout.take<std::byte>(compressor().capacity(cut_.longest));
    lengths_ = layout.take<cuda::u64>(lengths);
    return layout.bytes();
  };
  scratch_ = cuda::ScratchPool::of(device, Kind::device).take(stream, layout(nullptr));
  layout(scratch_.data());
  const std::size_t messages = rounded(cut_.messages, sizeof(cuda::u64));
  messages_ = cuda::ScratchPool::of(device, Kind::pinned)
                  .take(stream, messages + lengths * sizeof(cuda::u64));
  lengths_here_ = reinterpret_cast<const cuda::u64*>(messages_.data() + messages);
  findings_.emplace(queue_, cut_.slices.size(), 1);
  if (!summand_.compression.gathers) total_.resize(cut_.longest);
}

void GpuSparseCoding::select() {
  const auto& [device, stream] = queue_;
  const auto& left = summand_.compression.residual;
  const cuda::Input input{summand_.values.data(), left.empty() ? nullptr : left.data(),
                          summand_.values.size()};
  compressor().gpu_selection()->select(device, stream, input, entries_, selecting_);
  cuda::write_payloads(device, stream, entries_, segments_, payloads_, lengths_);
  device.copy(stream, const_cast<cuda::u64*>(lengths_here_), lengths_,
              segments_.size() * sizeof *lengths_);
  selected_ = steps_.add();
}

/// Before the lengths are known no rank has all parts of anything, so no other step is begun.
Coding::Step GpuSparseCoding::encode(const Range& segment, Payload& payload) {
  const Waiting what{numbers_.at(segment.offset), &payload};
  if (lengths_known_) return copy_here(what);
  waiting_.push_back(what);
  return selected_ + waiting_.size();
}

Coding::Step GpuSparseCoding::copy_here(const Waiting& what) {
  const auto& [number, payload] = what;
  payload->length = lengths_here_[number];
  queue_.device.copy(queue_.stream, payload->memory, payloads_ + segments_[number].payload,
                     payload->length);
  return steps_.add();
}

Coding::Step GpuSparseCoding::encode_sum(const Range& segment, std::span<const Payload> parts,
                                         Payload& sum) {
  const std::span total(total_.data(), segment.count);
  for (std::size_t rank = 0; rank < parts.size(); ++rank) {
    try {
      compressor().decode({parts[rank].memory, parts[rank].length}, total,
                          rank == 0 ? Store::copy : Store::add);
    } catch (const ArgumentError& error) {
      refuse(static_cast<int>(rank), error.what());
    }
  }
  prescale({.prescale = summand_.factor}, total.data(), total.size());
  sum.length = compressor().for_sums()->encode(total, {}, {key(), segment.offset}, sum.memory);
  return 0;
}

Coding::Step GpuSparseCoding::store_sum(const Range& segment, std::span<const Payload> parts) {
  for (std::size_t rank = 0; rank < parts.size(); ++rank)
    read(parts[rank], part_, segment, rank == 0 ? Store::copy : Store::add, static_cast<int>(rank));
  const Reduction by{.prescale = summand_.factor};
  if (by.scales()) {
    float* const result = summand_.result.data() + segment.offset;
    cuda::scale(queue_.device, queue_.stream, by, result, result, segment.count);
  }
  return steps_.add();
}

Coding::Step GpuSparseCoding::decode(const Range& segment, const Payload& sum, int owner) {
  std::byte* const there = payloads_ + segments_[numbers_.at(segment.offset)].payload;
  read(sum, there, segment, Store::copy, owner);
  return steps_.add();
}

void GpuSparseCoding::read(const Payload& payload, std::byte* there, const Range& segment,
                           Store store, int from) {
  const auto& [device, stream] = queue_;
  device.copy(stream, there, payload.memory, payload.length);
  cuda::read_payload(device, stream, {there, payload.length},
                     summand_.result.subspan(segment.offset, segment.count), store,
                     findings_->flags() + from, reading_);
}

Coding::Step GpuSparseCoding::end() { return end_ = findings_->copy(steps_); }

bool GpuSparseCoding::passed(Step step) {
  if (!lengths_known_ && selected_) {
    if (!steps_.passed(selected_)) return false;
    lengths_known_ = true;
    for (const auto& what : waiting_) copy_here(what);
    waiting_.clear();
  }
  if (!steps_.passed(step)) return false;
  if (const int rank = findings_->wrong(step); rank >= 0)
    refuse(rank, "the sparse payload is malformed");
  if (end_ && step == end_) {
    messages_.mark_idle();
    scratch_.mark_idle();
    findings_->mark_idle();
  }
  return true;
}

}  // namespace ronde
