#include "methods/vector.h"

#include <cstring>

#include "cuda/upload.h"

namespace ronde {

Vector::~Vector() {
  if (!there_) return;
  try {
    there_->device.synchronise(there_->stream);
  } catch (...) {
    // A device that is lost touches nothing any more.
  }
}

std::span<float> Vector::on_host() {
  if (there_) {
    const auto& [device, memory, stream] = *there_;
    std::vector<float> values(count_);
    auto& pool = cuda::ScratchPool::of(device, cuda::Memory::Kind::pinned);
    const auto pinned = pool.take(stream, memory->size());
    device.copy(stream, pinned.data(), memory->data(), memory->size());
    device.synchronise(stream);
    std::memcpy(values.data(), pinned.data(), memory->size());
    values_ = std::move(values);
    there_.reset();
  }
  return values_;
}

std::span<float> Vector::on_device(cuda::Device& device, cuda::StreamHandle stream) {
  if (count_ == 0) return {};
  if (!there_ || &there_->device != &device) {
    const auto values = std::as_bytes(on_host());
    auto& there = there_.emplace(device, stream, values.size());
    try {
      cuda::upload(device, stream, there.memory->data(), values);
    } catch (...) {
      there_.reset();  // the values are on the host still
      throw;
    }
    values_ = {};
  } else if (there_->stream != stream) {
    cuda::Event used(device);
    used.record(there_->stream);
    used.order_before(stream);
    there_->stream = stream;
  }
  return {reinterpret_cast<float*>(there_->memory->data()), count_};
}

}  // namespace ronde
