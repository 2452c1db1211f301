// Values of float32 that are kept from call to call, on the host or in the memory of a GPU: where
// they were last used.
//
// One thread at a time uses a vector. On a device a use is what is enqueued on a stream; the next
// one comes after it, whatever its stream.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "cuda/scratch.h"

namespace ronde {

class Vector {
 public:
  explicit Vector(std::vector<float> values) : count_(values.size()), values_(std::move(values)) {}
  ~Vector();
  Vector(const Vector&) = delete;
  Vector& operator=(const Vector&) = delete;

  std::size_t size() const { return count_; }

  /// On the host. Waits for what is enqueued, if the values are on a device.
  std::span<float> on_host();

  /// On this device, for what is enqueued on `stream` from now on.
  std::span<float> on_device(cuda::Device& device, cuda::StreamHandle stream);

 private:
  struct There {
    There(cuda::Device& on, cuda::StreamHandle last, std::size_t bytes)
        : device(on),
          memory(cuda::ScratchPool::of(on, cuda::Memory::Kind::device).memory(bytes)),
          stream(last) {}

    cuda::Device& device;
    const std::unique_ptr<cuda::Memory> memory;
    cuda::StreamHandle stream;  // of the last use
  };

  const std::size_t count_;
  std::vector<float> values_;  // unless they are on a device:
  std::optional<There> there_;
};

}  // namespace ronde
