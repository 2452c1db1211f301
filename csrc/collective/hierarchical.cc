#include "collective/hierarchical.h"

#include <memory>
#include <utility>
#include <vector>

#include "collective/adasum.h"
#include "collective/memory.h"
#include "kernels/kernels.h"
#include "node/shared_movement.h"
#include "node/shared_reduction.h"

namespace ronde {

Slices::Slices(Lane& lane, Operation& operation, std::span<const Piece> pieces, Reduction reduction)
    : Slices(lane, operation, pieces, reduction,
             Chunks::even(bytes_of(pieces) / size_of(reduction.dtype), lane.board()->size())) {}

Slices::Slices(Lane& lane, Operation& operation, std::span<const Piece> pieces, Reduction reduction,
               Chunks slices)
    : lane_(lane),
      operation_(operation),
      pieces_(pieces),
      reduction_(reduction),
      slices_(std::move(slices)),
      packed_(pieces.size() != 1),
      vector_(packed_ ? operation.allocate(bytes_of(pieces)).buffer() : pieces[0].output),
      own_(operation.allocate(place().count * size_of(reduction.dtype)).buffer()) {}

Task<Extremes> Slices::reduce() {
  if (packed_) pack(lane_.recorder(), pieces_, vector_);
  const ConstBuffer input = packed_ ? vector_ : pieces_[0].input;
  lane_.takes(operation_, Counter::bytes_in_shared_memory, input.bytes);
  std::vector<std::size_t> counts;
  for (int rank = 0; rank < slices_.size(); ++rank) counts.push_back(slices_.count(rank));
  lane_.next(operation_);
  return lane_.agree_in_memory(operation_, lane_.shared<SharedReduceScatter>(
                                               lane_.fingerprint(operation_, bytes_of(pieces_)),
                                               input, own_, counts, reduction_));
}

Task<> Slices::spread() {
  const auto choose = [this](const Board& board) {
    const std::size_t item = size_of(reduction_.dtype);
    std::vector<Wanted> wanted(board.size());
    for (int rank = 0; rank < board.size(); ++rank) {
      const Buffer to = vector_.slice(slices_[rank].offset * item, slices_[rank].count * item);
      wanted[rank] = {.stream_bytes = to.bytes, .to = to};
    }
    return wanted;
  };
  const Stream stream{.data = own_, .bytes = own_.bytes};
  lane_.next(operation_);
  const auto fingerprint = lane_.fingerprint(operation_, bytes_of(pieces_));
  const auto movement =
      lane_.shared<SharedMovement>(fingerprint, stream, false, [](Note&) {}, choose);
  co_await lane_.run_in_memory(operation_, movement);
  if (packed_) unpack(lane_.recorder(), pieces_, vector_);
}

Task<> Hierarchical::begin_allreduce(Operation& operation, std::span<const Piece> pieces,
                                     Reduction reduction, std::string_view) {
  if (reduction.adaptive) {
    co_await adasum_over_machines(lane_, operation, pieces, reduction);
    co_return;
  }
  const std::size_t bytes = bytes_of(pieces), item = size_of(reduction.dtype);
  if (bytes <= Board::kShortBytes && piggybacks(lane_, bytes, item)) {
    co_await allreduce_short(operation, pieces, reduction);
    co_return;
  }
  if (needs_link(lane_, bytes)) {
    co_await lane_.agree(operation);
    co_await know_link(lane_, operation, bytes);
  }
  const int local = lane_.board()->size();
  Slices slices(lane_, operation, pieces, before(reduction, local));
  // The same for all local ranks: some may have an element less, or none.
  const std::size_t longest = Chunks::even(bytes / item, local).largest() * item;
  const bool piggybacked = piggybacks(lane_, longest, item);
  const Reduction between = after(reduction, local);
  const Extremes said = co_await slices.reduce();
  if (piggybacked) {
    const Piece slice{slices.own(), slices.own()};
    co_await reduce_piggybacked(lane_, operation, said, slice, between);
  } else {
    co_await lane_.agree_by_messages(operation, said);
    Transport& across = *lane_.across();
    const Layout layout{.rank = across.rank(),
                        .chunks = Chunks::even(slices.place().count, across.size()),
                        .inputs = {}};
    const Operands operands{{}, slices.own()};
    co_await run_on(lane_, across, operation, Collective::allreduce, layout, operands,
                    element_of(between), std::string_view());
    finish(between, across.size(), slices.own());
  }
  co_await slices.spread();
}

Task<> Hierarchical::allreduce_short(Operation& operation, std::span<const Piece> pieces,
                                     Reduction reduction) {
  const int local = lane_.board()->size();
  const Buffer sum = operation.allocate(bytes_of(pieces)).buffer();
  std::vector<Piece> here(pieces.begin(), pieces.end());
  std::size_t offset = 0;
  for (auto& piece : here) {
    piece.output = sum.slice(offset, piece.input.bytes);
    offset += piece.input.bytes;
  }
  lane_.takes(operation, Counter::bytes_in_shared_memory, sum.bytes);
  lane_.next(operation);
  const auto reduce = lane_.shared<SharedAllreduce>(lane_.fingerprint(operation, sum.bytes),
                                                    Pieces(here), before(reduction, local));
  // A mismatch in this machine is reported to the other machines too: all ranks must raise.
  const Extremes said = co_await lane_.agree_in_memory(operation, reduce);
  const Piece vector{sum, sum};
  co_await reduce_piggybacked(lane_, operation, said, vector, after(reduction, local));
  unpack(lane_.recorder(), pieces, sum);
}

}  // namespace ronde
