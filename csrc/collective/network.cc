#include "collective/network.h"

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "collective/adasum.h"
#include "collective/link.h"
#include "collective/memory.h"
#include "kernels/kernels.h"

namespace ronde {
namespace {

constexpr Element kBytes{};  // that are only moved

}  // namespace

Task<> run_on(Lane& lane, Transport& transport, Operation& operation, Collective collective,
              const Layout& layout, Operands operands, Element element,
              std::string_view algorithm) {
  const auto& plan = lane.plans().plan(collective, layout, element.bytes, algorithm);
  const auto& schedule = plan.schedule;
  if (lane.explains() && lane.size() > 1) {
    lane.explain(operation,
                 "over the network, " + std::string(name_of(collective)) + " of " +
                     std::to_string(layout.chunks.total() * element.bytes) + " bytes by " +
                     std::string(plan.algorithm->name) + " in " + std::to_string(schedule->steps) +
                     " steps and " + std::to_string(schedule->actions.size()) +
                     " actions, segments of up to " +
                     std::to_string(lane.settings().segment_bytes) + " bytes; " + plan.why);
  }
  if (schedule->actions.empty()) co_return;  // a lone rank, or nothing to move
  const auto execution = std::make_shared<Execution>(
      transport, schedule, operands, element, lane.data_tag(operation),
      Depth{lane.settings().window, lane.plans().in_flight()},
      std::string(name_of(collective)) + " by " + std::string(plan.algorithm->name));
  const std::size_t bytes = layout.chunks.total() * element.bytes;
  lane.takes(operation, Counter::bytes_over_network, bytes);
  operation.entry.moves(plan.algorithm->name);
  const Span span(lane.recorder(), "wire", {.bytes = bytes, .by = plan.algorithm->name});
  co_await execution;
}

bool needs_link(Lane& lane, std::size_t bytes) {
  return lane.size() > 1 && lane.plans().needs_link(bytes);
}

Task<> know_link(Lane& lane, Operation& operation, std::size_t bytes) {
  if (!needs_link(lane, bytes)) co_return;
  const Span span(lane.recorder(), "measure the link");
  const auto link = co_await measured_link(lane, operation);
  lane.plans().set_link(link);
  if (lane.explains()) lane.control().hooks().log("the link between ranks: " + text_of(link));
}

bool piggybacks(Lane& lane, std::size_t bytes, std::size_t element_bytes) {
  const bool agrees = lane.settings().check || lane.across();
  return lane.plans().piggybacks(bytes, element_bytes, lane.outward().size(), agrees);
}

Task<> reduce_piggybacked(Lane& lane, Operation& operation, Extremes said, Piece vector,
                          Reduction reduction) {
  auto& transport = lane.outward();
  lane.takes(operation, Counter::bytes_piggybacked, vector.input.bytes);
  const auto contributions =
      std::make_shared<Contributions>(transport.rank(), transport.size(), vector.input);
  co_await lane.agree_by_messages(operation, said, contributions);
  std::vector<const void*> all;
  for (int rank = 0; rank < transport.size(); ++rank) all.push_back(contributions->of(rank));
  void* out = vector.output.data;
  reduce_many(reduction, {&out, 1}, all, elements_of(reduction, vector.input), false);
}

/// After phase 0.
Task<> Network::run(Operation& operation, Collective collective, const Layout& layout,
                    Operands operands, Element element, std::string_view algorithm) {
  // The ranks see layouts of different lengths in an alltoall, and only there.
  if (collective != Collective::alltoall &&
      needs_link(lane_, layout.chunks.total() * element.bytes))
    return run_first(operation, collective, layout, operands, element, algorithm);
  return run_on(lane_, lane_.transport(), operation, collective, layout, operands, element,
                algorithm);
}

/// The same where the link is not known yet.
Task<> Network::run_first(Operation& operation, Collective collective, const Layout& layout,
                          Operands operands, Element element, std::string_view algorithm) {
  co_await know_link(lane_, operation, layout.chunks.total() * element.bytes);
  co_await run_on(lane_, lane_.transport(), operation, collective, layout, operands, element,
                  algorithm);
}

Task<> Network::begin_allreduce(Operation& operation, std::span<const Piece> pieces,
                                Reduction reduction, std::string_view algorithm) {
  if (reduction.adaptive) {
    co_await adasum_over_network(lane_, operation, pieces, reduction, algorithm);
    co_return;
  }
  const std::size_t bytes = bytes_of(pieces);
  const bool free = !lane_.board() && lane_.plans().chosen_freely(Collective::allreduce, algorithm);
  if (free && needs_link(lane_, bytes)) {
    co_await lane_.agree(operation);
    co_await know_link(lane_, operation, bytes);
  }
  // One piece is reduced where its result belongs; several are packed into one vector.
  const bool packed = pieces.size() != 1;
  const Buffer data = packed ? operation.allocate(bytes).buffer() : pieces[0].output;
  const ConstBuffer mine = packed ? data : pieces[0].input;
  if (free && piggybacks(lane_, bytes, size_of(reduction.dtype))) {
    lane_.next(operation);
    if (packed) pack(lane_.recorder(), pieces, data);
    if (lane_.explains())
      lane_.explain(operation,
                    "over the network, piggybacked on the comparison of the calls (phase 0)");
    // Ranks that agree on the call but not on its length would misread the data.
    const auto said = Extremes::of(lane_.fingerprint(operation, bytes));
    const Piece vector{mine, data};
    co_await reduce_piggybacked(lane_, operation, said, vector, reduction);
    if (packed) unpack(lane_.recorder(), pieces, data);
    co_return;
  }
  co_await lane_.begin(operation);
  if (packed) {
    pack(lane_.recorder(), pieces, data);
  } else {
    const Span span(lane_.recorder(), "pack", {.bytes = bytes});
    copy(data, mine);
  }
  const std::size_t count = elements_of(reduction, data);
  prescale(reduction, data.data, count);
  const Layout layout{
      .rank = lane_.rank(), .chunks = Chunks::even(count, lane_.size()), .inputs = {}};
  const Operands operands{{}, data};
  co_await run(operation, Collective::allreduce, layout, operands, element_of(reduction),
               algorithm);
  finish(reduction, lane_.size(), data);
  if (packed) unpack(lane_.recorder(), pieces, data);
}

Task<> Network::begin_reduce_scatter(Operation& operation, ConstBuffer input, Buffer output,
                                     const Chunks& chunks, Reduction reduction,
                                     std::string_view algorithm) {
  co_await lane_.begin(operation);
  const Buffer data = operation.allocate(input.bytes).buffer();
  copy(data, input);
  prescale(reduction, data.data, chunks.total());
  const Layout layout{.rank = lane_.rank(), .chunks = chunks, .inputs = {}};
  const Operands operands{{}, data};
  co_await run(operation, Collective::reduce_scatter, layout, operands, element_of(reduction),
               algorithm);
  const auto mine = chunks[lane_.rank()];
  const std::size_t item = size_of(reduction.dtype);
  copy(output, data.slice(mine.offset * item, mine.count * item));
  finish(reduction, lane_.size(), output);
}

Task<> Network::begin_reduce(Operation& operation, Piece piece, Reduction reduction, int root,
                             std::string_view algorithm) {
  co_await lane_.begin(operation);
  const bool is_root = lane_.rank() == root;
  const Buffer data = is_root ? piece.output : operation.allocate(piece.input.bytes).buffer();
  copy(data, piece.input);
  const std::size_t count = elements_of(reduction, data);
  prescale(reduction, data.data, count);
  const Layout layout{.rank = lane_.rank(),
                      .chunks = Chunks::even(count, lane_.size()),
                      .inputs = {},
                      .root = root};
  const Operands operands{{}, data};
  co_await run(operation, Collective::reduce, layout, operands, element_of(reduction), algorithm);
  if (is_root) finish(reduction, lane_.size(), data);
}

Task<> Network::begin_broadcast(Operation& operation, Buffer data, int root,
                                std::string_view algorithm) {
  co_await lane_.begin(operation);
  const Layout layout{.rank = lane_.rank(),
                      .chunks = Chunks::even(data.bytes, lane_.size()),
                      .inputs = {},
                      .root = root};
  const Operands operands{{}, data};
  co_await run(operation, Collective::broadcast, layout, operands, kBytes, algorithm);
}

Task<Gathered> Network::begin_allgather(Operation& operation, Contribution mine,
                                        std::string_view algorithm) {
  return collect(operation, Collective::allgather, mine, 0, algorithm);
}

Task<Gathered> Network::begin_gather(Operation& operation, Contribution mine, int root,
                                     std::string_view algorithm) {
  return collect(operation, Collective::gather, mine, root, algorithm);
}

/// Learns how much each rank has, then moves it.
Task<Gathered> Network::collect(Operation& operation, Collective collective, Contribution mine,
                                int root, std::string_view algorithm) {
  co_await lane_.begin(operation);
  const auto counts = operation.zeros<std::size_t>(lane_.size());
  counts[lane_.rank()] = mine.rows;
  const Layout ones{
      .rank = lane_.rank(), .chunks = Chunks::even(lane_.size(), lane_.size()), .inputs = {}};
  const Operands numbers{{}, buffer_of(counts)};
  const Element word{.bytes = sizeof(std::size_t)};
  co_await run(operation, Collective::allgather, ones, numbers, word, std::string_view());

  const Layout layout{
      .rank = lane_.rank(), .chunks = bytes_of(counts, mine.row_bytes), .inputs = {}, .root = root};
  Bytes data = operation.allocate(layout.chunks.total());
  copy(chunk_of(data.buffer(), layout.chunks[lane_.rank()]), mine.data);
  const Operands operands{{}, data.buffer()};
  co_await run(operation, collective, layout, operands, kBytes, algorithm);
  const bool receives = collective == Collective::allgather || lane_.rank() == root;
  Gathered result{{counts.begin(), counts.end()}, receives ? data : Bytes()};
  co_return result;
}

Task<Scattered> Network::begin_scatter(Operation& operation, Rows all,
                                       std::span<const std::int64_t> header, int root,
                                       std::string_view algorithm) {
  co_await lane_.begin(operation);
  // The root alone knows what comes, and sends it: the rows of all ranks, the length of a row, the
  // header.
  const auto size = static_cast<std::size_t>(lane_.size());
  const bool is_root = lane_.rank() == root;
  const auto head = operation.zeros<std::int64_t>(size + 2 + kHeaderWords);
  const auto lengths = head.subspan(size, 2);
  const auto words = head.subspan(size + 2);
  if (is_root) {
    std::copy(all.counts.begin(), all.counts.end(), head.begin());
    lengths[0] = static_cast<std::int64_t>(all.bytes);
    lengths[1] = static_cast<std::int64_t>(header.size());
    std::copy(header.begin(), header.end(), words.begin());
  }
  const Layout heads{.rank = lane_.rank(),
                     .chunks = Chunks::even(head.size(), lane_.size()),
                     .inputs = {},
                     .root = root};
  const Operands sent{{}, buffer_of(head)};
  const Element word{.bytes = sizeof(std::int64_t)};
  co_await run(operation, Collective::broadcast, heads, sent, word, std::string_view());

  const std::vector<std::size_t> rows(head.begin(), head.begin() + lane_.size());
  const Layout layout{.rank = lane_.rank(),
                      .chunks = bytes_of(rows, static_cast<std::size_t>(lengths[0])),
                      .inputs = {},
                      .root = root};
  const Buffer data = operation.allocate(layout.chunks.total()).buffer();
  if (is_root) copy(data, all.data);
  const Operands operands{{}, data};
  co_await run(operation, Collective::scatter, layout, operands, kBytes, algorithm);

  const auto mine = layout.chunks[lane_.rank()];
  Scattered result{rows[lane_.rank()],
                   Bytes(mine.count),
                   {words.begin(), words.begin() + static_cast<std::ptrdiff_t>(lengths[1])}};
  copy(result.data.buffer(), chunk_of(data, mine));
  co_return result;
}

Task<Gathered> Network::begin_alltoall(Operation& operation, Rows all, std::string_view algorithm) {
  co_await lane_.begin(operation);
  // First the lengths: an alltoall of one number to each rank.
  const auto sent = operation.zeros<std::size_t>(lane_.size());
  const auto received = operation.zeros<std::size_t>(lane_.size());
  std::copy(all.counts.begin(), all.counts.end(), sent.begin());
  const Chunks each = Chunks::even(lane_.size(), lane_.size());
  const Layout ones{.rank = lane_.rank(), .chunks = each, .inputs = each};
  const Operands numbers{buffer_of(sent), buffer_of(received)};
  const Element word{.bytes = sizeof(std::size_t)};
  co_await run(operation, Collective::alltoall, ones, numbers, word, std::string_view());

  const Layout layout{.rank = lane_.rank(),
                      .chunks = bytes_of(received, all.bytes),
                      .inputs = bytes_of(all.counts, all.bytes)};
  const Bytes data = operation.allocate(layout.chunks.total());
  const Operands operands{all.data, data.buffer()};
  co_await run(operation, Collective::alltoall, layout, operands, kBytes, algorithm);
  Gathered result{{received.begin(), received.end()}, data};
  co_return result;
}

}  // namespace ronde
