// Copies on the host of what a call has in the memory of GPUs.
//
//   Staging staging(operation);
//   const Buffer here = staging.input(there);  // memory of the host as it is
//   const Buffer result = staging.output(elsewhere);
//   co_await staging.fetch();                  // then inputs are here
//   ...
//   staging.store();                           // enqueues the copies of the outputs
//
// The memory is pinned, and belongs to the operation.
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
  /// Both, which are the same memory then.
  Piece piece(const Piece& piece) { return pieces({&piece, 1}).front(); }
  /// The same of pieces, whose copies follow one another. Those on one GPU are copied all at once.
  std::vector<Piece> pieces(std::span<const Piece> pieces);

  /// All is to be named before.
  Task<> fetch();
  void store();

 private:
  /// Arrays of a GPU, which are one vector here.
  struct Copy {
    cuda::Device* device;
    std::vector<Buffer> there;
    Buffer here;
  };
  Copy copy_of(cuda::Device& device, std::vector<Buffer> there);
  cuda::StreamHandle stream_of(cuda::Device& device);
  void fetch(const Copy& copy);
  void store(const Copy& copy);

  Operation& operation_;
  std::vector<std::pair<cuda::Device*, cuda::StreamHandle>> streams_;
  std::vector<Copy> inputs_, outputs_;
};

}  // namespace ronde
