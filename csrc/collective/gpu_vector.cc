#include "collective/gpu_vector.h"

#include <algorithm>
#include <utility>

#include "collective/memory.h"
#include "cuda/pack.h"
#include "cuda/reduce.h"

namespace ronde {

GpuVector::GpuVector(std::span<const Piece> pieces, const Reduction& reduction,
                     const cuda::Queue& queue)
    : pieces_(pieces), reduction_(reduction), orders_(orders_of(pieces)), queue_(queue) {}

GpuVector::~GpuVector() {
  try {
    for (auto* order : orders_) order->ends_after(queue_.stream);
  } catch (...) {
    // A device that is lost touches nothing any more.
  }
}

std::shared_ptr<Work> GpuVector::may_be_touched() const { return until_begun(orders_); }

void GpuVector::pack() {
  const auto& [device, stream] = queue_;
  ConstBuffer values = pieces_[0].input;
  Buffer result = pieces_[0].output;
  if (pieces_.size() != 1) {
    const std::size_t bytes = bytes_of(pieces_);
    packed_ = cuda::ScratchPool::of(device, cuda::Memory::Kind::device).take(stream, bytes);
    result = {packed_.data(), bytes, {}};
    values = result;
    cuda::pack(device, stream, inputs_of(pieces_), result.data);
  }
  result_ = floats_of(result);
  if (reduction_.prescale != 1.0) {  // before a compressor can overflow
    cuda::scale(device, stream, {.prescale = reduction_.prescale}, result.data, values.data,
                result_.size());
    values = result;
  }
  values_ = floats_of(values);
}

void GpuVector::unpack() {
  if (pieces_.size() != 1)
    cuda::unpack(queue_.device, queue_.stream, packed_.data(), outputs_of(pieces_));
}

}  // namespace ronde
