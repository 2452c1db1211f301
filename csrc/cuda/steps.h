// How far a stream has come with what is enqueued on it.
#pragma once

#include <cstdint>

#include "cuda/device.h"

namespace ronde::cuda {

/// Of a stream that has one user.
class Steps {
 public:
  Steps(const Device& device, StreamHandle stream) : stream_(stream), event_(device) {}

  /// What has been enqueued so far is a step. They are numbered from 1 on.
  std::uint64_t add() { return ++added_; }

  /// Whether the stream has passed this step, and so all before it. There is one event, which is
  /// recorded again once it has been reached: it stands for all steps that there are by then.
  bool passed(std::uint64_t step);

 private:
  const StreamHandle stream_;
  Event event_;
  std::uint64_t added_ = 0, recorded_ = 0, passed_ = 0;
};

}  // namespace ronde::cuda
