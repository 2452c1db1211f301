// Reductions in the shared memory of one machine. Every element is reduced in the order of the
// ranks at every position, so its bits depend on neither chunks nor fusion.
//
// SharedAllreduce takes one of three routes, for vectors of n bytes on P ranks:
//
//   short    the data is in the notes of phase 0, and every rank reduces all of it
//   direct   all operands are in memory that all ranks can reach: pieces of the vector are given
//            out by ticket, and the rank that draws one reduces it from all inputs into all
//            outputs; 2n bytes are read and written for each rank
//   staged   the vector goes through the stages in chunks. While a rank reduces its slice of chunk
//            i, which it reads from its own memory and the others' stages, it copies chunk i+1 into
//            its stage and the finished chunk i-1 out: one barrier for each chunk. (5 - 2/P) n
//            bytes are read and written, but what stays in cache costs little.
//
// SharedReduceScatter is the first half of it: each stage has a column for each rank, and a rank
// reduces its columns into its own memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/buffer.h"
#include "core/pieces.h"
#include "core/reduction.h"
#include "node/shared_collective.h"

namespace ronde {

class SharedAllreduce final : public SharedCollective {
 public:
  static constexpr int kAllRanks = -1;

  /// The result goes to all ranks or to `root` alone; other ranks' outputs are not touched.
  /// `fingerprint` must differ for calls of different lengths.
  SharedAllreduce(Board& board, std::uint64_t fingerprint, Pieces pieces,
                  const Reduction& reduction, int root = kAllRanks);

  const char* route() const override;

 private:
  enum class Route { brief, direct, staged };
  struct Span {
    std::size_t begin, end;
  };

  std::size_t plan() override;
  void copy_in(std::size_t number) override;
  bool round(std::size_t number) override;

  bool reduce_by_ticket();
  void reduce_short();
  Span chunk(std::size_t number) const;
  Span slice(const Span& chunk) const;
  void reduce_slice(std::size_t number);
  void copy_out(std::size_t number);

  const Pieces pieces_;
  const Reduction reduction_;
  const int root_;
  const bool receives_;  // whether the result goes to this rank
  const std::size_t chunk_count_;
  const std::uint64_t first_chunk_;  // by the board's count
  Route route_ = Route::staged;
  bool streaming_ = false;
  std::vector<const std::byte*> sources_;  // everybody's operands, where they can be reached
  std::vector<std::byte*> targets_;
  std::vector<const void*> ins_;  // of what is being reduced
  std::vector<void*> outs_;
};

class SharedReduceScatter final : public SharedCollective {
 public:
  /// `input` is cut into `counts` elements for each rank; `output` gets this rank's.
  SharedReduceScatter(Board& board, std::uint64_t fingerprint, ConstBuffer input, Buffer output,
                      const std::vector<std::size_t>& counts, const Reduction& reduction);

  const char* route() const override;

 private:
  std::size_t plan() override;
  void copy_in(std::size_t number) override;
  bool round(std::size_t number) override;

  bool reduce_directly();
  void reduce_column(std::size_t number);

  const ConstBuffer input_;
  const Buffer output_;
  const Reduction reduction_;
  std::vector<std::size_t> begins_;  // of the ranks' parts, in bytes, and the end
  const std::size_t column_bytes_;
  std::size_t chunk_count_ = 0;
  const std::uint64_t first_chunk_;
  bool direct_ = false;
  std::size_t done_ = 0;                   // bytes of the output, directly
  std::vector<const std::byte*> sources_;  // everybody's input
  std::vector<const void*> ins_;
};

}  // namespace ronde
