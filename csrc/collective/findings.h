// What a GPU finds wrong with the payloads of other ranks while it decodes them.
//
// A flag for each rank, in memory of the device, becomes 1 where what that rank has sent is no
// payload. The flags are copied to the host behind the work that may set them, and looked at when
// the stream has passed that.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>

#include "cuda/order.h"
#include "cuda/scratch.h"
#include "cuda/steps.h"

namespace ronde {

class Findings {
 public:
  /// They are copied so many times, at most.
  Findings(const cuda::Queue& queue, std::size_t ranks, std::size_t copies);

  /// Of all ranks, for what is enqueued before the next copy.
  unsigned* flags() const { return there_ + copied_ * ranks_; }
  /// Enqueues a copy, which is a step.
  std::uint64_t copy(cuda::Steps& steps);

  /// A rank that has sent no payload, as far as is known when this step has passed; -1: none has.
  int wrong(std::uint64_t step);

  /// The last copy is there.
  void mark_idle();

 private:
  const cuda::Queue queue_;
  const std::size_t ranks_;
  cuda::Scratch device_, pinned_;
  unsigned *there_, *here_;
  std::size_t copied_ = 0, seen_ = 0;
  std::deque<std::uint64_t> steps_;  // of the copies that nobody has seen
};

}  // namespace ronde
