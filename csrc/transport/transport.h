// Bytes between ranks. Knows no algorithms.
//
// Nouns, the same in every transport:
//   message   one send and the receive that it matches: same pair of ranks, same tag
//   request   a send or a receive under way; complete when `test` has said so, once
//   capacity  the bytes that a receive has room for; a message may be shorter, and `test` says how
//             long it was. Longer is an error.
// Messages between the same two ranks with the same tag arrive in the order of their sends.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "core/buffer.h"

namespace ronde {

using Request = std::uint32_t;

/// A peer for `recv`: whoever sends first. Only the control channel uses it.
inline constexpr int kAnyPeer = -1;

class Transport {
 public:
  virtual ~Transport() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  /// What a rank is called in the transport of which this is a part, or here.
  virtual int member(int rank) const { return rank; }

  /// Starts a send. The memory must stay untouched until the request is complete.
  virtual Request send(int peer, int tag, ConstBuffer message) = 0;

  /// Starts a receive of at most `capacity.bytes`.
  virtual Request recv(int peer, int tag, Buffer capacity) = 0;

  /// The bytes moved if the request is complete, which also frees it; nothing if it is not.
  /// Throws RankFailedError if the peer or the connection is gone.
  virtual std::optional<std::size_t> test(Request request) = 0;

  /// The bytes of all messages that this rank has sent so far.
  virtual std::int64_t bytes_sent() const = 0;
};

/// The largest tag that every transport takes (what the MPI standard promises).
inline constexpr int kMaxTag = 32767;

}  // namespace ronde
