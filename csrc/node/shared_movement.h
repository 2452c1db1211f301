// Collectives that only move data, in the shared memory of one machine.
//
// They are all the same: each rank has a stream of bytes, and each rank wants some part of each
// stream. The streams go through the stages in chunks, one barrier for each, or are read directly
// if all ranks can reach them. In a broadcast all outputs may be reachable too: then pieces are
// given out by ticket, and the rank that draws one copies it to all.
//
//   broadcast   the root has a stream, all want all of it
//   scatter     the root has a stream, each rank wants its part
//   allgather   each rank has a stream, all want all of each
//   gather      each rank has a stream, the root wants all of each
//   alltoall    each rank has a stream, each rank wants its part of each
//
// In an alltoall a stream begins with the part of the next rank, so that the ranks do not all want
// the same chunks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "core/buffer.h"
#include "node/shared_collective.h"

namespace ronde {

/// The stream of a rank.
struct Stream {
  ConstBuffer data;
  std::size_t rotation = 0;  // where in `data` the stream begins; it goes on at the beginning
  std::size_t bytes = 0;     // its length, at most that of `data`
};

/// What this rank wants of the stream of a rank.
struct Wanted {
  std::size_t stream_bytes = 0;
  std::size_t begin = 0;   // in the stream; of its own it need not be part
  std::size_t offset = 0;  // the same position in the memory behind it
  Buffer to;
};

class SharedMovement final : public SharedCollective {
 public:
  /// After phase 0: what this rank wants of each stream, by what the notes say.
  using Choose = std::function<std::vector<Wanted>(const Board& board)>;

  /// `write` fills in this rank's note. `rooted`: only one rank has a stream, and uses the stages
  /// of all. `copy`: where a copy of the only stream goes on this rank, if that is known now.
  SharedMovement(Board& board, std::uint64_t fingerprint, const Stream& stream, bool rooted,
                 const std::function<void(Note&)>& write, Choose choose, Buffer copy = {});

 private:
  std::size_t plan() override;
  void copy_in(std::size_t number) override;
  bool round(std::size_t number) override;

  bool find_outputs();
  bool copy_by_ticket();
  bool copy_directly();
  void copy_out(std::size_t number);
  void keep_own(std::size_t number);
  std::byte* stage(int rank, std::size_t number) const;

  const Stream stream_;
  const bool rooted_;
  const std::size_t chunk_bytes_;
  const Choose choose_;
  const std::uint64_t first_chunk_;
  std::size_t chunk_count_ = 0;
  std::vector<Wanted> wanted_;
  std::vector<const std::byte*> sources_;  // where streams can be read directly
  std::vector<std::byte*> outputs_;        // of all ranks but the root, where they can be written
  std::size_t longest_ = 0;                // of the streams, in bytes
  bool streaming_ = false;
  int copying_ = 0;         // from this rank's stream, directly
  std::size_t copied_ = 0;  // of what is wanted of it
  bool direct_ = false;
};

}  // namespace ronde
