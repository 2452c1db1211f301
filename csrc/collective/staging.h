// Copies on the host of what a call has in the memory of GPUs.
//
//   Staging staging(operation);
//   const Buffer here = staging.input(there);   // memory of the host as it is
//   const Buffer result = staging.output(elsewhere);
//   co_await staging.fetch();                         // then inputs are here
//   ...
//   staging.store();                                  // enqueues the copies of the outputs
//
// The memory is pinned, so copies are as fast as the bus. It lives as long as the staging, which
// the task that makes it owns, and as the copies; and for ever if the operation is given up.
#pragma once

#include <span>
#include <utility>
#include <vector>

#include "collective/operation.h"
#include "collective/task.h"
#include "core/buffer.h"
#include "core/pieces.h"
#include "cuda/device.h"

namespace ronde {

/// Whether memory of a GPU is among it.
inline bool on_gpu(ConstBuffer memory) { return memory.device.is_gpu(); }
bool on_gpu(std::span<const Piece> pieces);

class Staging {
 public:
  explicit Staging(Operation& operation) : operation_(operation) {}
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  /// Memory of the host that is given as an input must not be written.
  Buffer input(ConstBuffer memory);
  Buffer output(Buffer memory);
  /// Both; where they are the same memory, their copies are.
  Piece piece(const Piece& piece);

  /// All is to be named before.
  Task<> fetch();
  void store();

 private:
  struct Copy {
    Buffer there, here;
  };
  Buffer room_for(ConstBuffer memory);
  cuda::StreamHandle stream_of(cuda::Device& device);

  Operation& operation_;
  std::vector<std::pair<cuda::Device*, cuda::StreamHandle>> streams_;
  std::vector<Copy> inputs_, outputs_;
};

}  // namespace ronde
