// The collectives of ranks that share memory. Each is a shared collective on the board (node/),
// phase 0 included.

#include <algorithm>
#include <cstring>
#include <vector>

#include "collective/communicator.h"
#include "collective/memory.h"
#include "node/shared_movement.h"
#include "node/shared_reduction.h"

namespace ronde {
namespace {

/// The payload of a note as numbers.
const std::size_t* words_of(const Note& note) {
  return reinterpret_cast<const std::size_t*>(note.payload);
}

std::vector<std::size_t> rows_of(const Board& board) {
  std::vector<std::size_t> rows;
  for (int rank = 0; rank < board.size(); ++rank) rows.push_back(board.note(rank).rows);
  return rows;
}

void say_nothing(Note&) {}

}  // namespace

void Communicator::allreduce_in_memory(const Call& call, std::span<const Piece> pieces,
                                       const Reduction& reduction) {
  guarded(call, [&] {
    Pieces all(pieces);
    share(call, all.bytes(), [&](std::uint64_t fingerprint) {
      return std::make_unique<SharedAllreduce>(*board_, fingerprint, std::move(all), reduction);
    });
  });
}

void Communicator::reduce_in_memory(const Call& call, const Piece& piece,
                                    const Reduction& reduction, int root) {
  guarded(call, [&] {
    share(call, piece.input.bytes, [&](std::uint64_t fingerprint) {
      return std::make_unique<SharedAllreduce>(*board_, fingerprint, Pieces({&piece, 1}), reduction,
                                               root);
    });
  });
}

void Communicator::reduce_scatter_in_memory(const Call& call, ConstBuffer input, Buffer output,
                                            const Chunks& chunks, const Reduction& reduction) {
  std::vector<std::size_t> counts;
  std::uint64_t extent = 0;
  for (int rank = 0; rank < size(); ++rank) {
    counts.push_back(chunks.count(rank));
    extent = extent * 31 + chunks.count(rank);
  }
  guarded(call, [&] {
    share(call, extent, [&](std::uint64_t fingerprint) {
      return std::make_unique<SharedReduceScatter>(*board_, fingerprint, input, output, counts,
                                                   reduction);
    });
  });
}

void Communicator::broadcast_in_memory(const Call& call, Buffer data, int root) {
  const bool is_root = rank() == root;
  const auto choose = [&](const Board&) {
    std::vector<Wanted> wanted(size());
    wanted[root] = {.stream_bytes = data.bytes, .to = is_root ? Buffer{} : data};
    return wanted;
  };
  guarded(call, [&] {
    share(call, data.bytes, [&](std::uint64_t fingerprint) {
      const Stream stream = is_root ? Stream{.data = data, .bytes = data.bytes} : Stream{};
      return std::make_unique<SharedMovement>(*board_, fingerprint, stream, true, say_nothing,
                                              choose, is_root ? Buffer{} : data);
    });
  });
}

/// Allgather, and gather where there is a root.
Gathered Communicator::collect_in_memory(const Call& call, ConstBuffer mine, std::size_t rows,
                                         std::size_t row_bytes, int root) {
  Gathered result;
  const auto choose = [&](const Board& board) {
    result.rows = rows_of(board);
    const Chunks chunks = bytes_of(result.rows, row_bytes);
    const bool receives = root == kAllRanks || root == rank();
    if (receives) result.data = Bytes(chunks.total());
    std::vector<Wanted> wanted(size());
    for (int r = 0; r < size(); ++r) {
      wanted[r].stream_bytes = r == root ? 0 : chunks.count(r);
      if (receives) wanted[r].to = chunk_of(result.data.buffer(), chunks[r]);
    }
    return wanted;
  };
  guarded(call, [&] {
    share(call, row_bytes, [&](std::uint64_t fingerprint) {
      // A root keeps its own to itself.
      const Stream stream{.data = mine, .bytes = rank() == root ? 0 : mine.bytes};
      return std::make_unique<SharedMovement>(
          *board_, fingerprint, stream, false, [&](Note& note) { note.rows = rows; }, choose);
    });
  });
  return result;
}

Communicator::Scattered Communicator::scatter_in_memory(const Call& call, ConstBuffer all,
                                                        const Parts& parts, int root) {
  Scattered result;
  const bool is_root = rank() == root;
  // The root alone knows what comes, and writes into its note: the length of a row and of the
  // header, the rows of all ranks, the header.
  const auto write = [&](Note& note) {
    if (!is_root) return;
    auto* words = reinterpret_cast<std::size_t*>(note.payload);
    words[0] = parts.row_bytes;
    words[1] = parts.header.size();
    std::copy(parts.rows.begin(), parts.rows.end(), words + 2);
    std::memcpy(words + 2 + size(), parts.header.data(), parts.header.size_bytes());
  };
  const auto choose = [&](const Board& board) {
    const auto* words = words_of(board.note(root));
    const Chunks chunks = bytes_of({words + 2, static_cast<std::size_t>(size())}, words[0]);
    result.rows = words[2 + rank()];
    result.header.resize(words[1]);
    std::memcpy(result.header.data(), words + 2 + size(), words[1] * sizeof(std::int64_t));
    const auto part = chunks[rank()];
    result.data = Bytes(part.count);
    std::vector<Wanted> wanted(size());
    wanted[root] = {.stream_bytes = chunks.total(),
                    .begin = part.offset,
                    .offset = part.offset,
                    .to = result.data.buffer()};
    return wanted;
  };
  guarded(call, [&] {
    share(call, 0, [&](std::uint64_t fingerprint) {
      const Stream stream = is_root ? Stream{.data = all, .bytes = all.bytes} : Stream{};
      return std::make_unique<SharedMovement>(*board_, fingerprint, stream, true, write, choose);
    });
  });
  return result;
}

Gathered Communicator::alltoall_in_memory(const Call& call, ConstBuffer all,
                                          std::span<const std::size_t> rows,
                                          std::size_t row_bytes) {
  Gathered result;
  // A stream begins with the part of the next rank and ends before the rank's own.
  const auto rotation_of = [&](int rank, const Chunks& parts) {
    return rank + 1 < size() ? parts[rank + 1].offset : 0;
  };
  const auto write = [&](Note& note) {
    std::copy(rows.begin(), rows.end(), reinterpret_cast<std::size_t*>(note.payload));
  };
  const auto choose = [&](const Board& board) {
    std::vector<Wanted> wanted(size());
    for (int r = 0; r < size(); ++r) {
      const auto* sent = words_of(board.note(r));
      result.rows.push_back(sent[rank()]);
      const Chunks parts = bytes_of({sent, static_cast<std::size_t>(size())}, row_bytes);
      const auto mine = parts[rank()];
      const std::size_t total = parts.total();
      wanted[r].stream_bytes = total - parts.count(r);
      wanted[r].offset = mine.offset;
      if (total > 0) wanted[r].begin = (mine.offset + total - rotation_of(r, parts)) % total;
    }
    const Chunks received = bytes_of(result.rows, row_bytes);
    result.data = Bytes(received.total());
    for (int r = 0; r < size(); ++r) wanted[r].to = chunk_of(result.data.buffer(), received[r]);
    return wanted;
  };
  guarded(call, [&] {
    share(call, row_bytes, [&](std::uint64_t fingerprint) {
      const Chunks sent = bytes_of(rows, row_bytes);
      const Stream stream{.data = all,
                          .rotation = rotation_of(rank(), sent),
                          .bytes = sent.total() - sent.count(rank())};
      return std::make_unique<SharedMovement>(*board_, fingerprint, stream, false, write, choose);
    });
  });
  return result;
}

}  // namespace ronde
