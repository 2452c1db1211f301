// The calls of the fake NCCL (fake_nccl.cc) and what they do to memory, once all ranks have come.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace fake_nccl {

enum class Result : int {
  success = 0,
  unhandled_cuda_error = 1,
  invalid_argument = 4,
  invalid_usage = 5,
  in_progress = 7,
};

enum class Kind { send, receive, all_reduce, reduce_scatter, all_gather, broadcast, reduce };

struct Call {
  Kind kind;
  const void* in = nullptr;
  void* out = nullptr;
  std::size_t count = 0;
  int type = 0;  // ncclDataType_t
  int op = 0;    // ncclRedOp_t
  int peer = 0;  // or root

  std::size_t round = 0;  // among the collectives of its rank
  bool done = false;

  bool moves() const { return kind == Kind::send || kind == Kind::receive; }
  bool reduces() const {
    return kind == Kind::all_reduce || kind == Kind::reduce_scatter || kind == Kind::reduce;
  }
  bool rooted() const { return kind == Kind::broadcast || kind == Kind::reduce; }
  /// Whether they are the same collective.
  bool same(const Call& other) const {
    return kind == other.kind && count == other.count && type == other.type && op == other.op &&
           peer == other.peer;
  }
};

std::size_t bytes_of(const Call& call);

/// As in "ncclSend(7 ncclFloat32, to rank 1)".
std::string text_of(const Call& call);

/// What is wrong with its arguments, in a communicator of so many ranks. Empty if nothing.
std::string complaint(const Call& call, int size);

/// A collective, of all ranks in order.
void perform(const std::vector<const Call*>& calls);

}  // namespace fake_nccl
