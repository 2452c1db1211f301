// How NCCL connects the ranks of a lane, or those of them that are on this machine.
//
// Each lane has a communicator of its own, and that a stream of its own, on which nothing else
// runs. So two ranks never have operations of two lanes in a stream in different orders, each of
// which would wait for the other. Within a lane all ranks call NCCL in the same order. Between
// lanes there is no order but that of phase 0 (what is enqueued on one rank comes on all): kernels
// of several lanes may wait on a GPU at once, which is right as long as all of them fit on it.
//
// The ranks are connected in the first call of the lane that needs it, and on the GPU of its
// arrays.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "collective/task.h"
#include "cuda/device.h"
#include "cuda/nccl.h"
#include "cuda/order.h"

namespace ronde {

class Lane;
class Operation;

/// As a Work it is done when NCCL has done what it was called for, and under way again when it is
/// called once more. Given up, NCCL's operations end, whatever their peers do.
class NcclConnection final : public Work, public std::enable_shared_from_this<NcclConnection> {
 public:
  /// Of a lane: all, or those of this machine, where there are several machines with several ranks.
  enum class Ranks { all, of_machine };

  explicit NcclConnection(Ranks ranks) : ranks_(ranks) {}
  /// Another of the same ranks, for another lane.
  std::shared_ptr<NcclConnection> another() const {
    auto made = std::make_shared<NcclConnection>(ranks_);
    made->warned_ = warned_;
    return made;
  }
  NcclConnection(const NcclConnection&) = delete;
  NcclConnection& operator=(const NcclConnection&) = delete;

  /// These ranks all call it, in calls of arrays on GPUs. The first time, after phase 0, they
  /// connect each other, unless some of them use the same GPU. Returns, alike on all of them,
  /// whether they are connected. `device`: the own one of this rank (lane.h). Where they are
  /// those of a machine, the ranks have agreed on the call before.
  Task<bool> connect(Lane& lane, Operation& operation, cuda::Device& device);
  /// Whether they have found that they cannot be.
  bool refused() const { return state_ == State::refused; }

  // Once connected.

  cuda::Device& device() const { return *device_; }
  cuda::StreamHandle stream() const { return *stream_; }
  /// Calls NCCL. Nothing else is enqueued on the stream until the work is done.
  template <class F>
  void call(F enqueue) {
    const std::lock_guard lock(mutex_);
    enqueue(*communicator_);
  }

  /// Waits until all that was called has been done, however late the caller's streams come to it;
  /// not after it was given up, and no longer than so many seconds, unless that is 0.
  void finish(double seconds);

  Progress progress() override;
  void abandon() override;

 private:
  enum class State { unknown, connected, refused };
  void begin(const cuda::NcclId& id, int size, int rank);

  const Ranks ranks_;
  State state_ = State::unknown;
  cuda::Device* device_ = nullptr;
  std::optional<cuda::OwnStream> stream_;
  std::mutex mutex_;  // another thread may give up
  std::optional<cuda::NcclCommunicator> communicator_;
  bool abandoned_ = false;
  std::shared_ptr<std::atomic<bool>> warned_ = std::make_shared<std::atomic<bool>>(false);
};

}  // namespace ronde
