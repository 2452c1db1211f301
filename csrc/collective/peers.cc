#include "collective/peers.h"

#include <utility>
#include <vector>

#include "collective/memory.h"
#include "collective/network.h"
#include "node/shared_reduction.h"

namespace ronde {
namespace {

constexpr Element kBytes{};
constexpr Reduction kSum{.dtype = DType::float64};

Task<> add_in_memory(Lane& lane, Operation& operation, Buffer numbers) {
  const Piece piece{numbers, numbers};
  lane.next(operation);
  const auto fingerprint = lane.fingerprint(operation, numbers.bytes);
  return lane.run_in_memory(operation,
                            lane.shared<SharedAllreduce>(fingerprint, Pieces({&piece, 1}), kSum));
}

}  // namespace

Task<> MessagePeers::scatter(ConstBuffer vector, const Chunks& chunks, Buffer rows) {
  const std::vector<std::size_t> alike(size(), chunks.count(rank()));
  const Layout layout{.rank = rank(), .chunks = Chunks::of(alike), .inputs = chunks};
  const Operands operands{vector, rows};
  co_await run_on(lane_, transport_, operation_, Collective::alltoall, layout, operands, kBytes,
                  std::string_view());
}

Task<> MessagePeers::add(Buffer numbers) {
  if (sliced_) co_await add_in_memory(lane_, operation_, numbers);
  const auto chunks = Chunks::even(numbers.bytes / sizeof(double), size());
  const Layout layout{.rank = rank(), .chunks = chunks, .inputs = {}};
  const Operands operands{{}, numbers};
  co_await run_on(lane_, transport_, operation_, Collective::allreduce, layout, operands,
                  element_of(kSum), algorithm_);
}

Task<> MessagePeers::gather(ConstBuffer own, const Chunks& chunks, Buffer vector) {
  copy(chunk_of(vector, chunks[rank()]), own);
  const Layout layout{.rank = rank(), .chunks = chunks, .inputs = {}};
  const Operands operands{{}, vector};
  co_await run_on(lane_, transport_, operation_, Collective::allgather, layout, operands, kBytes,
                  std::string_view());
}

/// An alltoall (shared_movement.h): a stream begins with the chunk of the next rank, and ends
/// before the rank's own.
Task<> MemoryPeers::scatter(ConstBuffer vector, const Chunks& chunks, Buffer rows) {
  const auto begin_of = [&chunks](int rank) {
    return rank + 1 < chunks.size() ? chunks[rank + 1].offset : 0;
  };
  const auto choose = [&chunks, rows, begin_of](const Board& board) {
    const Range mine = chunks[board.rank()];
    const std::size_t total = chunks.total();
    std::vector<Wanted> wanted(board.size());
    for (int r = 0; r < board.size(); ++r) {
      wanted[r].stream_bytes = total - chunks.count(r);
      if (total > 0) wanted[r].begin = (mine.offset + total - begin_of(r)) % total;
      wanted[r].offset = mine.offset;
      wanted[r].to = rows.slice(static_cast<std::size_t>(r) * mine.count, mine.count);
    }
    return wanted;
  };
  const std::size_t sent = chunks.total() - chunks.count(rank());
  return move({.data = vector, .rotation = begin_of(rank()), .bytes = sent}, choose, vector.bytes);
}

Task<> MemoryPeers::add(Buffer numbers) { return add_in_memory(lane_, operation_, numbers); }

Task<> MemoryPeers::gather(ConstBuffer own, const Chunks& chunks, Buffer vector) {
  const auto choose = [&chunks, vector](const Board& board) {
    std::vector<Wanted> wanted(board.size());
    for (int r = 0; r < board.size(); ++r)
      wanted[r] = {.stream_bytes = chunks.count(r), .to = chunk_of(vector, chunks[r])};
    return wanted;
  };
  return move({.data = own, .bytes = own.bytes}, choose, vector.bytes);
}

Task<> MemoryPeers::move(const Stream& stream, SharedMovement::Choose choose,
                         std::uint64_t extent) {
  lane_.next(operation_);
  const auto fingerprint = lane_.fingerprint(operation_, extent);
  const auto write_nothing = [](Note&) {};
  return lane_.run_in_memory(
      operation_,
      lane_.shared<SharedMovement>(fingerprint, stream, false, write_nothing, std::move(choose)));
}

}  // namespace ronde
