#include "collective/gpu_slices.h"

#include <string>

#include "collective/memory.h"
#include "collective/nccl_chunks.h"
#include "cuda/reduce.h"

namespace ronde {

GpuSlices::GpuSlices(Lane& lane, Operation& operation, std::span<const Piece> pieces,
                     Reduction reduction)
    : lane_(lane),
      operation_(operation),
      nccl_(lane.nccl_inside()->shared_from_this()),
      reduction_(reduction),
      slices_(Chunks::even(bytes_of(pieces) / sizeof(float), lane.board()->size())),
      vector_(pieces, reduction, {nccl_->device(), nccl_->stream()}) {}

Task<> GpuSlices::reduce() {
  lane_.next(operation_);
  co_await nccl_;  // which throws what NCCL has found wrong since the last call
  const auto may_be_touched = vector_.may_be_touched();
  co_await may_be_touched;
  lane_.takes(operation_, Counter::bytes_over_nccl, slices_.total() * sizeof(float));
  operation_.entry.moves("NCCL");
  if (lane_.explains())
    lane_.explain(operation_, "over NCCL in this machine first, among its " +
                                  std::to_string(slices_.size()) + " ranks");
  vector_.pack();
  nccl_->call([this](cuda::NcclCommunicator& nccl) {
    reduce_scatter(nccl, nccl_->stream(), vector_.values().data(), own().data(), slices_,
                   {.dtype = DType::float32});
  });
  co_await nccl_;
  scale({.divisor = reduction_.divisor}, own());
}

Task<> GpuSlices::spread() {
  lane_.next(operation_);
  nccl_->call([this](cuda::NcclCommunicator& nccl) {
    all_gather(nccl, nccl_->stream(), own().data(), vector_.result().data(), slices_,
               DType::float32);
  });
  co_await nccl_;
  vector_.unpack();
}

void GpuSlices::scale(const Reduction& by, std::span<float> values) const {
  const auto& [device, stream] = vector_.queue();
  if (by.scales() && !values.empty())
    cuda::scale(device, stream, by, values.data(), values.data(), values.size());
}

}  // namespace ronde
