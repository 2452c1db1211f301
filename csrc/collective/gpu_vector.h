// The float32 values of a call in memory of one GPU, as a vector that a stream of ours works on
// (cuda/order.h).
//
//   GpuVector vector(pieces, reduction, queue);
//   co_await vector.may_be_touched();
//   vector.pack();
//   ... vector.values(), vector.result(), vector.queue()
//   vector.unpack();
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "collective/findings.h"
#include "collective/orders.h"
#include "core/pieces.h"
#include "core/reduction.h"

namespace ronde {

class GpuVector {
 public:
  /// All pieces are on the GPU of the queue, and have orders. `reduction`: what they are scaled by
  /// before.
  GpuVector(std::span<const Piece> pieces, const Reduction& reduction, const cuda::Queue& queue);
  /// However the call ends: what comes after it waits for what has been enqueued.
  ~GpuVector();
  GpuVector(const GpuVector&) = delete;
  GpuVector& operator=(const GpuVector&) = delete;

  /// Done when the caller's streams have come to the call. Nothing is enqueued before.
  std::shared_ptr<Work> may_be_touched() const;

  /// Enqueues that values() are those of the pieces, scaled.
  void pack();
  /// Enqueues that result() is that of the pieces.
  void unpack();

  const cuda::Queue& queue() const { return queue_; }
  std::span<const float> values() const { return values_; }
  std::span<float> result() const { return result_; }

 private:
  const std::span<const Piece> pieces_;
  const Reduction reduction_;
  const Orders orders_;
  const cuda::Queue queue_;
  cuda::Scratch packed_;
  std::span<const float> values_;
  std::span<float> result_;
};

}  // namespace ronde
