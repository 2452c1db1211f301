// The slices of a machine whose ranks have their vectors on a GPU each, over NCCL:
//
//   reduce   a reduce-scatter, behind what packs and scales
//   spread   an allgather, in front of what unpacks
//
// All of it is enqueued on the stream of the lane's connection, and so is what others do with a
// slice in between. NCCL has its own order of additions: of three ranks or more the sum may have
// other bits than in shared memory. Each slice is added up once, so all ranks get the same.
#pragma once

#include <memory>
#include <span>

#include "collective/gpu_vector.h"
#include "collective/lane.h"
#include "collective/machine_slices.h"
#include "collective/nccl_connection.h"

namespace ronde {

class GpuSlices final : public MachineSlices {
 public:
  /// The ranks of the machine are connected, and have agreed on the call. `reduction`: what the
  /// machine does.
  GpuSlices(Lane& lane, Operation& operation, std::span<const Piece> pieces, Reduction reduction);

  Task<> reduce() override;
  std::span<float> own() const override {
    return vector_.result().subspan(place().offset, place().count);
  }
  Range place() const override { return slices_[lane_.board()->rank()]; }
  Task<> spread() override;

  const cuda::Queue* queue() const override { return &vector_.queue(); }
  void scale(const Reduction& by, std::span<float> values) const override;

 private:
  Lane& lane_;
  Operation& operation_;
  const std::shared_ptr<NcclConnection> nccl_;
  const Reduction reduction_;
  const Chunks slices_;
  GpuVector vector_;
};

}  // namespace ronde
