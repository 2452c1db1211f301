// Ranks that each do a part of a vector for all of them, and how they exchange it: by messages or
// in shared memory. Chunks are in bytes.
#pragma once

#include <string_view>

#include "collective/lane.h"
#include "core/buffer.h"
#include "node/shared_movement.h"
#include "schedule/schedule.h"

namespace ronde {

class Peers {
 public:
  Peers(Lane& lane, Operation& operation) : lane_(lane), operation_(operation) {}
  virtual ~Peers() = default;
  Peers(const Peers&) = delete;
  Peers& operator=(const Peers&) = delete;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  /// This rank's chunk of the vectors of all, one after another in `rows`.
  virtual Task<> scatter(ConstBuffer vector, const Chunks& chunks, Buffer rows) = 0;
  /// Numbers of float64 become their sum over all ranks that have a part.
  virtual Task<> add(Buffer numbers) = 0;
  /// The chunks of all, in `vector`.
  virtual Task<> gather(ConstBuffer own, const Chunks& chunks, Buffer vector) = 0;

 protected:
  Lane& lane_;
  Operation& operation_;
};

/// The ranks of a transport, after phase 0.
class MessagePeers final : public Peers {
 public:
  /// `sliced`: each rank of this machine has a slice of the vector, and these are its parts.
  /// `algorithm` is that of sums, if not empty.
  MessagePeers(Lane& lane, Operation& operation, Transport& transport, bool sliced,
               std::string_view algorithm)
      : Peers(lane, operation), transport_(transport), sliced_(sliced), algorithm_(algorithm) {}

  int rank() const override { return transport_.rank(); }
  int size() const override { return transport_.size(); }

  Task<> scatter(ConstBuffer vector, const Chunks& chunks, Buffer rows) override;
  Task<> add(Buffer numbers) override;
  Task<> gather(ConstBuffer own, const Chunks& chunks, Buffer vector) override;

 private:
  Transport& transport_;
  const bool sliced_;
  const std::string_view algorithm_;
};

/// The ranks of a machine that has all. What they do first is phase 0 too.
class MemoryPeers final : public Peers {
 public:
  using Peers::Peers;

  int rank() const override { return lane_.rank(); }
  int size() const override { return lane_.size(); }

  Task<> scatter(ConstBuffer vector, const Chunks& chunks, Buffer rows) override;
  Task<> add(Buffer numbers) override;
  Task<> gather(ConstBuffer own, const Chunks& chunks, Buffer vector) override;

 private:
  Task<> move(const Stream& stream, SharedMovement::Choose choose, std::uint64_t extent);
};

}  // namespace ronde
