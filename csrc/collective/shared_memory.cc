#include "collective/shared_memory.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "collective/adasum.h"
#include "collective/memory.h"
#include "node/shared_movement.h"
#include "node/shared_reduction.h"

namespace ronde {
namespace {

constexpr int kAllRanks = -1;

/// The payload of a note as numbers.
const std::size_t* words_of(const Note& note) {
  return reinterpret_cast<const std::size_t*>(note.payload);
}

std::vector<std::size_t> rows_of(const Board& board) {
  std::vector<std::size_t> rows;
  for (int rank = 0; rank < board.size(); ++rank) rows.push_back(board.note(rank).rows);
  return rows;
}

void write_nothing(Note&) {}

}  // namespace

/// The fingerprint of a call that begins, with so many bytes of this rank.
std::uint64_t SharedMemory::begin(Operation& operation, std::uint64_t extent, std::size_t bytes) {
  lane_.takes(operation, Counter::bytes_in_shared_memory, bytes);
  lane_.next(operation);
  return lane_.fingerprint(operation, extent);
}

// Where a call has no result to be made, its task is that of the shared collective itself.

Task<> SharedMemory::begin_allreduce(Operation& operation, std::span<const Piece> pieces,
                                     Reduction reduction, std::string_view) {
  if (reduction.adaptive) return adasum_in_memory(lane_, operation, pieces, reduction);
  Pieces all(pieces);
  const auto fingerprint = begin(operation, all.bytes(), all.bytes());
  return lane_.run_in_memory(operation,
                             lane_.shared<SharedAllreduce>(fingerprint, std::move(all), reduction));
}

Task<> SharedMemory::begin_reduce(Operation& operation, Piece piece, Reduction reduction, int root,
                                  std::string_view) {
  const auto fingerprint = begin(operation, piece.input.bytes, piece.input.bytes);
  return lane_.run_in_memory(
      operation, lane_.shared<SharedAllreduce>(fingerprint, Pieces({&piece, 1}), reduction, root));
}

Task<> SharedMemory::begin_reduce_scatter(Operation& operation, ConstBuffer input, Buffer output,
                                          const Chunks& chunks, Reduction reduction,
                                          std::string_view) {
  std::vector<std::size_t> counts;
  std::uint64_t extent = 0;
  for (int rank = 0; rank < lane_.size(); ++rank) {
    counts.push_back(chunks.count(rank));
    extent = extent * 31 + chunks.count(rank);
  }
  const auto fingerprint = begin(operation, extent, input.bytes);
  return lane_.run_in_memory(
      operation, lane_.shared<SharedReduceScatter>(fingerprint, input, output, counts, reduction));
}

Task<> SharedMemory::begin_broadcast(Operation& operation, Buffer data, int root,
                                     std::string_view) {
  const bool is_root = lane_.rank() == root;
  const Buffer to = is_root ? Buffer{} : data;
  const auto choose = [root, to, bytes = data.bytes](const Board& board) {
    std::vector<Wanted> wanted(board.size());
    wanted[root] = {.stream_bytes = bytes, .to = to};
    return wanted;
  };
  const Stream stream = is_root ? Stream{.data = data, .bytes = data.bytes} : Stream{};
  const auto fingerprint = begin(operation, data.bytes, data.bytes);
  return lane_.run_in_memory(operation, lane_.shared<SharedMovement>(fingerprint, stream, true,
                                                                     write_nothing, choose, to));
}

Task<Gathered> SharedMemory::begin_allgather(Operation& operation, Contribution mine,
                                             std::string_view) {
  return collect(operation, mine, kAllRanks);
}

Task<Gathered> SharedMemory::begin_gather(Operation& operation, Contribution mine, int root,
                                          std::string_view) {
  return collect(operation, mine, root);
}

Task<Gathered> SharedMemory::collect(Operation& operation, Contribution mine, int root) {
  Gathered result;
  const auto choose = [&](const Board& board) {
    result.rows = rows_of(board);
    const Chunks chunks = bytes_of(result.rows, mine.row_bytes);
    const bool receives = root == kAllRanks || root == board.rank();
    if (receives) result.data = Bytes(chunks.total());
    std::vector<Wanted> wanted(board.size());
    for (int r = 0; r < board.size(); ++r) {
      wanted[r].stream_bytes = r == root ? 0 : chunks.count(r);
      if (receives) wanted[r].to = chunk_of(result.data.buffer(), chunks[r]);
    }
    return wanted;
  };
  const auto write = [&](Note& note) { note.rows = mine.rows; };
  // A root keeps its own to itself.
  const Stream stream{.data = mine.data, .bytes = lane_.rank() == root ? 0 : mine.data.bytes};
  const auto fingerprint = begin(operation, mine.row_bytes, mine.data.bytes);
  const auto movement = lane_.shared<SharedMovement>(fingerprint, stream, false, write, choose);
  co_await lane_.run_in_memory(operation, movement);
  co_return result;
}

Task<Scattered> SharedMemory::begin_scatter(Operation& operation, Rows all,
                                            std::span<const std::int64_t> header, int root,
                                            std::string_view) {
  Scattered result;
  const bool is_root = lane_.rank() == root;
  // The root alone knows what comes, and writes into its note: the length of a row and of the
  // header, the rows of all ranks, the header.
  const auto write = [&](Note& note) {
    if (!is_root) return;
    auto* words = reinterpret_cast<std::size_t*>(note.payload);
    words[0] = all.bytes;
    words[1] = header.size();
    std::copy(all.counts.begin(), all.counts.end(), words + 2);
    std::memcpy(words + 2 + lane_.size(), header.data(), header.size_bytes());
  };
  const auto choose = [&](const Board& board) {
    const auto* words = words_of(board.note(root));
    const auto size = static_cast<std::size_t>(board.size());
    const Chunks chunks = bytes_of({words + 2, size}, words[0]);
    result.rows = words[2 + board.rank()];
    result.header.resize(words[1]);
    std::memcpy(result.header.data(), words + 2 + size, words[1] * sizeof(std::int64_t));
    const auto part = chunks[board.rank()];
    result.data = Bytes(part.count);
    std::vector<Wanted> wanted(size);
    wanted[root] = {.stream_bytes = chunks.total(),
                    .begin = part.offset,
                    .offset = part.offset,
                    .to = result.data.buffer()};
    return wanted;
  };
  const Stream stream = is_root ? Stream{.data = all.data, .bytes = all.data.bytes} : Stream{};
  const auto fingerprint = begin(operation, 0, all.data.bytes);
  const auto movement = lane_.shared<SharedMovement>(fingerprint, stream, true, write, choose);
  co_await lane_.run_in_memory(operation, movement);
  co_return result;
}

Task<Gathered> SharedMemory::begin_alltoall(Operation& operation, Rows all, std::string_view) {
  Gathered result;
  // A stream begins with the part of the next rank and ends before the rank's own.
  const auto rotation_of = [](int rank, const Chunks& parts) {
    return rank + 1 < parts.size() ? parts[rank + 1].offset : 0;
  };
  const auto write = [&](Note& note) {
    std::copy(all.counts.begin(), all.counts.end(), reinterpret_cast<std::size_t*>(note.payload));
  };
  const auto choose = [&](const Board& board) {
    const int size = board.size();
    std::vector<Wanted> wanted(size);
    for (int r = 0; r < size; ++r) {
      const auto* sent = words_of(board.note(r));
      result.rows.push_back(sent[board.rank()]);
      const Chunks parts = bytes_of({sent, static_cast<std::size_t>(size)}, all.bytes);
      const auto mine = parts[board.rank()];
      const std::size_t total = parts.total();
      wanted[r].stream_bytes = total - parts.count(r);
      wanted[r].offset = mine.offset;
      if (total > 0) wanted[r].begin = (mine.offset + total - rotation_of(r, parts)) % total;
    }
    const Chunks received = bytes_of(result.rows, all.bytes);
    result.data = Bytes(received.total());
    for (int r = 0; r < size; ++r) wanted[r].to = chunk_of(result.data.buffer(), received[r]);
    return wanted;
  };
  const Chunks sent = bytes_of(all.counts, all.bytes);
  const Stream stream{.data = all.data,
                      .rotation = rotation_of(lane_.rank(), sent),
                      .bytes = sent.total() - sent.count(lane_.rank())};
  const auto fingerprint = begin(operation, all.bytes, all.data.bytes);
  const auto movement = lane_.shared<SharedMovement>(fingerprint, stream, false, write, choose);
  co_await lane_.run_in_memory(operation, movement);
  co_return result;
}

}  // namespace ronde
