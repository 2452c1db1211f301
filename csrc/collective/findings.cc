#include "collective/findings.h"

#include <algorithm>
#include <span>

namespace ronde {

Findings::Findings(const cuda::Queue& queue, std::size_t ranks, std::size_t copies)
    : queue_(queue), ranks_(ranks) {
  const auto take = [&](cuda::Memory::Kind kind) {
    return cuda::ScratchPool::of(queue.device, kind)
        .take(queue.stream, ranks * copies * sizeof(unsigned));
  };
  device_ = take(cuda::Memory::Kind::device);
  pinned_ = take(cuda::Memory::Kind::pinned);
  there_ = reinterpret_cast<unsigned*>(device_.data());
  here_ = reinterpret_cast<unsigned*>(pinned_.data());
  queue.device.fill(queue.stream, there_, 0, device_.size());
}

std::uint64_t Findings::copy(cuda::Steps& steps) {
  queue_.device.copy(queue_.stream, here_ + copied_ * ranks_, flags(), ranks_ * sizeof(unsigned));
  ++copied_;
  return steps_.emplace_back(steps.add());
}

int Findings::wrong(std::uint64_t step) {
  for (; !steps_.empty() && steps_.front() <= step; steps_.pop_front(), ++seen_) {
    const std::span flags(here_ + seen_ * ranks_, ranks_);
    const auto found = std::ranges::find_if(flags, [](unsigned flag) { return flag != 0; });
    if (found != flags.end()) return static_cast<int>(found - flags.begin());
  }
  return -1;
}

void Findings::mark_idle() {
  device_.mark_idle();
  pinned_.mark_idle();
}

}  // namespace ronde
