// What the ranks of one machine do for a compressed allreduce over several: they add up their
// vectors by slices, one for each rank, and in the end have all slices again. In between each rank
// reduces its own with the ranks of its local rank on the other machines. Machines may do it
// differently: in shared memory (compressed.cc), or over NCCL where the vectors are on GPUs
// (gpu_slices.h).
#pragma once

#include <span>

#include "collective/task.h"
#include "core/reduction.h"
#include "cuda/order.h"
#include "schedule/schedule.h"

namespace ronde {

class MachineSlices {
 public:
  virtual ~MachineSlices() = default;
  MachineSlices(const MachineSlices&) = delete;
  MachineSlices& operator=(const MachineSlices&) = delete;

  /// The sum in the machine, and before it phase 0, unless the ranks have agreed on the call.
  virtual Task<> reduce() = 0;
  /// This rank's slice of it, once reduced, and where it stands in the vector.
  virtual std::span<float> own() const = 0;
  virtual Range place() const = 0;
  /// All slices to all ranks of the machine, once `own` is reduced between the machines.
  virtual Task<> spread() = 0;

  /// Where work on the slice is enqueued, if it is on a GPU; otherwise null.
  virtual const cuda::Queue* queue() const { return nullptr; }
  /// Divides and multiplies values that are where the slice is.
  virtual void scale(const Reduction& by, std::span<float> values) const = 0;

 protected:
  MachineSlices() = default;
};

}  // namespace ronde
