#include "collective/gpu_vector.h"

#include <algorithm>
#include <utility>

#include "collective/memory.h"
#include "cuda/pack.h"
#include "cuda/reduce.h"

namespace ronde {
namespace {

/// Each once.
std::vector<cuda::Order*> orders_of(std::span<const Piece> pieces) {
  std::vector<cuda::Order*> orders;
  for (const auto& piece : pieces) {
    for (const auto& device : {piece.input.device, piece.output.device}) {
      auto* const order = static_cast<cuda::Order*>(device.order);
      if (std::ranges::find(orders, order) == orders.end()) orders.push_back(order);
    }
  }
  return orders;
}

class Begun final : public Work {
 public:
  explicit Begun(std::vector<cuda::Order*> orders) : orders_(std::move(orders)) {}
  Progress progress() override {
    const bool begun = std::ranges::all_of(orders_, [](auto* order) { return order->begun(); });
    return begun ? Progress::done : Progress::idle;
  }

 private:
  const std::vector<cuda::Order*> orders_;
};

std::vector<cuda::Array> inputs_of(std::span<const Piece> pieces) {
  std::vector<cuda::Array> arrays;
  for (const auto& [input, output] : pieces)
    arrays.push_back({const_cast<std::byte*>(input.data), input.bytes});
  return arrays;
}

std::vector<cuda::Array> outputs_of(std::span<const Piece> pieces) {
  std::vector<cuda::Array> arrays;
  for (const auto& [input, output] : pieces) arrays.push_back({output.data, output.bytes});
  return arrays;
}

}  // namespace

GpuVector::GpuVector(std::span<const Piece> pieces, const Reduction& reduction)
    : pieces_(pieces),
      reduction_(reduction),
      orders_(orders_of(pieces)),
      stream_{orders_.front()->device(), cuda::stream_for_call(orders_.front()->device())} {}

GpuVector::~GpuVector() {
  try {
    for (auto* order : orders_) order->ends_after(stream_.handle);
  } catch (...) {
    // A device that is lost touches nothing any more.
  }
}

std::shared_ptr<Work> GpuVector::may_be_touched() const { return std::make_shared<Begun>(orders_); }

void GpuVector::pack() {
  const auto& [device, stream] = stream_;
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
    const void* const in = values.data;
    cuda::reduce_many(device, stream, {.prescale = reduction_.prescale}, result.data, {&in, 1},
                      result_.size());
    values = result;
  }
  values_ = floats_of(values);
}

void GpuVector::unpack() {
  if (pieces_.size() != 1)
    cuda::unpack(stream_.device, stream_.handle, packed_.data(), outputs_of(pieces_));
}

}  // namespace ronde
