// Allreduce over several machines with several ranks each: what one machine can do for itself goes
// through its memory, and each rank drives its share of the network with the ranks of the same
// local rank on the other machines.
//
//   reduce-scatter in the machine; allreduce of the own slice between the machines; allgather in
//   the machine
//
// So 2n(M-1)/M bytes cross the link of each of M machines, however many ranks it has. A short
// vector is reduced in the machine, and its sum is piggybacked on phase 0 between the machines.

#include <algorithm>
#include <utility>
#include <vector>

#include "collective/communicator.h"
#include "collective/memory.h"
#include "kernels/kernels.h"
#include "node/shared_movement.h"
#include "node/shared_reduction.h"

namespace ronde {

void Communicator::allreduce_across(const Call& call, std::span<const Piece> pieces,
                                    const Reduction& reduction) {
  const std::size_t bytes = bytes_of(pieces);
  guarded(call, [&] {
    const std::size_t item = size_of(reduction.dtype);
    if (bytes <= Board::kShortBytes && piggybacks(bytes, item)) {
      allreduce_short_across(call, pieces, reduction);
      return;
    }
    agree_and_know_link(call, bytes);
    // The same for all local ranks: some may have an element less, or none.
    const bool piggybacked =
        piggybacks(Chunks::even(bytes / item, board_->size()).largest() * item, item);
    const Reduction between = after(reduction, board_->size());
    reduce_by_slices(call, pieces, before(reduction, board_->size()),
                     [&](const Extremes& said, Buffer slice, Range place) {
                       if (piggybacked) {
                         reduce_piggybacked(call, said, slice, slice, between);
                         return;
                       }
                       agree_by_messages(call, said, false);
                       const Layout layout{.rank = across_->rank(),
                                           .chunks = Chunks::even(place.count, across_->size()),
                                           .inputs = {}};
                       run_on(*across_, Collective::allreduce, layout, {{}, slice},
                              element_of(between), call, {});
                       finish(between, across_->size(), slice);
                     });
  });
}

/// The machine reduces, each rank gets a slice of the sum and does with it what is to be done
/// `between` the machines, and all slices go to all. What comes between begins with the rest of
/// phase 0: `said` has the fingerprints of the ranks of this machine.
void Communicator::reduce_by_slices(const Call& call, std::span<const Piece> pieces,
                                    const Reduction& before, Between between) {
  const std::size_t bytes = bytes_of(pieces), item = size_of(before.dtype);
  const bool packed = pieces.size() != 1;
  const Buffer vector = packed ? pack(pieces) : pieces[0].output;
  const ConstBuffer input = packed ? vector : pieces[0].input;

  const Chunks slices = Chunks::even(bytes / item, board_->size());
  const auto own = slices[board_->rank()];
  const Buffer slice = allocate(own.count * item).buffer();
  std::vector<std::size_t> counts;
  for (int place = 0; place < board_->size(); ++place) counts.push_back(slices.count(place));
  ++sequence_;
  const auto said = agree_in_memory(call, bytes, [&](std::uint64_t mine) {
    return std::make_unique<SharedReduceScatter>(*board_, mine, input, slice, counts, before);
  });

  between(said, slice, own);

  const auto choose = [&](const Board&) {
    std::vector<Wanted> wanted(board_->size());
    for (int place = 0; place < board_->size(); ++place) {
      const Buffer to = vector.slice(slices[place].offset * item, slices[place].count * item);
      wanted[place] = {.stream_bytes = to.bytes, .to = to};
    }
    return wanted;
  };
  share(call, bytes, [&](std::uint64_t mine) {
    const Stream stream{.data = slice, .bytes = slice.bytes};
    return std::make_unique<SharedMovement>(*board_, mine, stream, false, [](Note&) {}, choose);
  });
  if (packed) unpack(pieces, vector);
}

void Communicator::allreduce_compressed(const Call& call, std::span<const Piece> pieces,
                                        const Reduction& reduction,
                                        const Compression& compression) {
  const bool one_machine = size() == 1 || (board_ && !across_);
  if (one_machine && !compression.per_rank) return allreduce(call, pieces, reduction);
  const auto& compressor = *compression.compressor;
  const bool by_slices = across_ && !compression.per_rank;
  // For an average, what a machine sends is the mean of its ranks if their sum might not fit.
  const bool mean = by_slices && reduction.divisor != 1.0 && compressor.overflows();
  Reduction inside = before(reduction, 1), outside = after(reduction, 1);
  if (mean) {
    inside.divisor = board_->size();
    outside.divisor /= inside.divisor;
  }
  const auto compressed = [&](Transport& transport, ConstBuffer values, Buffer result,
                              Range place) {
    Compression part = compression;
    part.rank = rank();
    auto& left = part.residual;
    if (!left.empty()) left = left.subspan(place.offset, place.count);
    // It is in units of a sum, and meanwhile in those of what is sent.
    postscale(inside, left.data(), left.size());
    compress_between(transport, call, part,
                     {reinterpret_cast<const float*>(values.data), place.count},
                     {reinterpret_cast<float*>(result.data), place.count}, outside);
    prescale({.dtype = DType::float32, .prescale = inside.divisor}, left.data(), left.size());
  };
  // Sparse payloads take one of two routes, exact sums one of many: by what the link costs.
  const auto know_what_matters = [&] {
    if (compressor.for_sums() || compressor.summable_offset()) know_link(call, bytes_of(pieces));
  };
  guarded(call, [&] {
    if (by_slices) {
      reduce_by_slices(call, pieces, inside, [&](const Extremes& said, Buffer slice, Range place) {
        agree_by_messages(call, said, false);
        know_what_matters();
        compressed(*across_, slice, slice, place);
      });
      return;
    }
    agree(call);
    know_what_matters();
    const bool packed = pieces.size() != 1;
    const Buffer result = packed ? pack(pieces) : pieces[0].output;
    const std::size_t count = result.bytes / sizeof(float);
    ConstBuffer values = packed ? ConstBuffer(result) : pieces[0].input;
    if (reduction.prescale != 1.0) {  // before a compressor can overflow
      copy(result, values);
      prescale(reduction, result.data, count);
      values = result;
    }
    compressed(*transport_, values, result, {Where::data, 0, count});
    if (packed) unpack(pieces, result);
  });
}

/// After phase 0, between ranks that share no memory, or take no notice of it. `after` says what
/// the sum is scaled by.
void Communicator::compress_between(Transport& transport, const Call& call, Compression compression,
                                    std::span<const float> values, std::span<float> result,
                                    const Reduction& after) {
  const auto& compressor = *compression.compressor;
  if (compressor.summable_offset())
    return add_payloads(transport, call, compression, values, result, after);
  if (compressor.for_sums()) {
    // Bits do not depend on it but for the signs of zeros.
    compression.gathers =
        !settings_.deterministic &&
        better_gathered(compressor.capacity_of_whole(values.size()), transport.size(), link_);
  }
  if (explains_)
    explain(call, std::string("over the network, compressed, ") +
                      (compression.gathers ? "payloads gathered by all ranks" : "by slices"));
  const double factor = after.postscale / after.divisor;
  const int tag = data_tag();
  ++sequence_;  // it takes two tags
  drive(std::make_shared<CompressedAllreduce>(transport, std::move(compression), values, result,
                                              static_cast<float>(factor), tag,
                                              "compressed allreduce"),
        call);
}

/// Where the payload of the sum is the sum of the payloads, it is found like any other sum.
void Communicator::add_payloads(Transport& transport, const Call& call,
                                const Compression& compression, std::span<const float> values,
                                std::span<float> result, const Reduction& after) {
  const auto& compressor = *compression.compressor;
  const Buffer payload = allocate(compressor.capacity(values.size())).buffer();
  const std::size_t length =
      compressor.encode(values, compression.residual, {.key = compression.key}, payload.data);
  const std::size_t head = *compressor.summable_offset();
  const Buffer numbers = payload.slice(head, length - head);
  const std::size_t count = numbers.bytes / sizeof(float);
  const Layout layout{
      .rank = transport.rank(), .chunks = Chunks::even(count, transport.size()), .inputs = {}};
  run_on(transport, Collective::allreduce, layout, {{}, numbers}, element_of(after), call, {});
  postscale(after, numbers.data, count);
  compressor.decode({payload.data, length}, result, Store::copy);
}

void Communicator::allreduce_short_across(const Call& call, std::span<const Piece> pieces,
                                          const Reduction& reduction) {
  const Buffer sum = allocate(bytes_of(pieces)).buffer();
  std::vector<Piece> local(pieces.begin(), pieces.end());
  std::size_t offset = 0;
  for (auto& piece : local) {
    piece.output = sum.slice(offset, piece.input.bytes);
    offset += piece.input.bytes;
  }
  ++sequence_;
  // A mismatch in this machine is reported to the other machines too: all ranks must raise.
  const auto said = agree_in_memory(call, sum.bytes, [&](std::uint64_t mine) {
    return std::make_unique<SharedAllreduce>(*board_, mine, Pieces(local),
                                             before(reduction, board_->size()));
  });
  reduce_piggybacked(call, said, sum, sum, after(reduction, board_->size()));
  unpack(pieces, sum);
}

}  // namespace ronde
