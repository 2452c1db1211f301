// Allreduce through the memory of one machine, phase 0 included.
//
// The vector goes through the stages in chunks. While chunk i is copied into the own stage, the
// rank reduces its slice of chunk i-1 straight out of all stages, in rank order, and copies the
// finished chunk i-2 out: one barrier for each chunk, whatever the number of ranks. A short vector
// is reduced whole by every rank, right after the first barrier, which is phase 0.
//
// Every element is reduced in rank order wherever it stands, so its bits depend on neither chunks
// nor fusion. A rank reads and writes (5 - 2/P) n bytes, of which what stays in cache costs little.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/buffer.h"
#include "core/reduction.h"
#include "node/board.h"

namespace ronde {

class SharedAllreduce {
 public:
  /// `input` may be `output`, but must not overlap it otherwise. Where it is empty this is phase 0
  /// alone. `fingerprint` must tell calls of different lengths apart.
  SharedAllreduce(Board& board, std::uint64_t fingerprint, ConstBuffer input, Buffer output,
                  const Reduction& reduction);

  /// Goes on until a barrier has to be waited for, or for a while (false), or until all is done
  /// (true).
  bool advance();

  /// Grows while it moves.
  std::size_t iteration() const { return iteration_; }

  /// Once done: whether all ranks made the same call. If not, `output` is as it was.
  bool agreed() const { return agreed_; }

 private:
  std::size_t begin_of(std::size_t chunk) const { return chunk * Board::kStageBytes; }
  std::size_t bytes_of(std::size_t chunk) const;

  void start(std::size_t iteration);
  bool compare() const;
  void copy_in(std::size_t chunk);
  void reduce_slice(std::size_t chunk);
  void reduce_range(std::byte* to, std::uint64_t stage, std::size_t begin, std::size_t end);
  void copy_out(std::size_t chunk);

  Board& board_;
  const ConstBuffer input_;
  const Buffer output_;
  const Reduction reduction_;
  const std::size_t chunk_count_;
  const std::uint64_t first_chunk_;  // by the board's count
  std::size_t iteration_ = 0;
  bool agreed_ = false;
};

}  // namespace ronde
