// Arrays of GPUs, as Python's device_arrays.py finds them, and as the core takes them.
#pragma once

#include <pybind11/numpy.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "core/buffer.h"
#include "core/dtype.h"
#include "cuda/order.h"
#include "cuda/received.h"

namespace ronde {

class OnDevice {
 public:
  using Stream = std::optional<std::uintptr_t>;

  /// `dtype`: of its copies on the host; `type`: what the core calls it. `make(shape, device)`
  /// makes another of its kind, as an OnDevice. `stream`: in whose order the memory may be touched
  /// now; None if it may be at once. `gpu`: the number of its GPU, where an empty array's pointer
  /// says nothing; None: that of this thread. `together`: one of the same call that was made just
  /// before, or null. Throws ArgumentError if the memory is no GPU's.
  OnDevice(pybind11::object array, std::uintptr_t pointer, std::vector<std::int64_t> shape,
           pybind11::dtype dtype, DType type, bool writable, pybind11::object make,
           const Stream& stream, std::optional<int> gpu, const OnDevice* together);
  ~OnDevice();
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

  const pybind11::object array;
  const std::vector<std::int64_t> shape;
  const pybind11::dtype dtype;
  const DType type;
  const bool writable;

  std::size_t bytes() const { return buffer_.bytes; }
  /// An empty one is as good as on the host.
  Buffer buffer() const { return bytes() ? buffer_ : Buffer{}; }
  /// What is on a GPU even where it is empty: one of several parts, which may be of other lengths.
  Buffer part() const { return buffer_; }
  pybind11::object like(const std::vector<std::int64_t>& of_shape) const {
    return make_(of_shape, buffer_.device.number);
  }

  /// A call has ended that wrote to it: what is enqueued on `stream` from now on comes after. None:
  /// waits until it is written.
  void hand_over(const Stream& stream) const;

  /// Its values on the host, once the stream has come to them.
  pybind11::array read() const;
  /// New values, before whatever is enqueued on `stream` from now on.
  void write(const pybind11::array& values, const Stream& stream) const;
  /// The same of another array of a GPU.
  void copy_from(const OnDevice& other) const;
  /// What a call has received for it.
  void take(cuda::Received& received) const;

 private:
  const pybind11::object make_;
  Buffer buffer_;
  Stream stream_;
  std::shared_ptr<cuda::Order> order_;
};

}  // namespace ronde
