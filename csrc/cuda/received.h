// What a call has received on a device, until the caller has memory for it.
//
// How much comes is known only while the call is under way, by a thread that may be none of the
// caller's. Libraries of arrays give memory in the order of a stream of the caller's, so their
// array is made when the caller asks for the result, and this is copied there.
#pragma once

#include <cstddef>

#include "cuda/device.h"
#include "cuda/scratch.h"

namespace ronde::cuda {

class Received {
 public:
  /// Not filled, for use on `stream`.
  Received(Device& device, StreamHandle stream, std::size_t bytes)
      : device_(device),
        memory_(ScratchPool::of(device, Memory::Kind::device).take(stream, bytes)) {}

  std::byte* data() const { return memory_.data(); }

  /// All that writes to it is enqueued by now.
  void end() { memory_.end_use(); }

  /// Moves it to memory of the same size, in the order of a stream of the caller's. It is empty
  /// then.
  void move_to(void* to, StreamHandle stream) {
    memory_.order_before(stream);
    device_.copy(stream, to, memory_.data(), memory_.size());
    memory_.give_back_after(stream);
  }

 private:
  Device& device_;
  Scratch memory_;
};

}  // namespace ronde::cuda
