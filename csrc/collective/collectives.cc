// The collectives, each in the same steps: agree, find the memory, run a schedule. Where the ranks
// share memory they go through that instead (in_memory.cc, across_machines.cc).

#include <algorithm>
#include <vector>

#include "collective/communicator.h"
#include "collective/memory.h"
#include "collective/select.h"
#include "kernels/kernels.h"

namespace ronde {
namespace {

std::size_t count_of(const Reduction& reduction, const Buffer& data) {
  return data.bytes / size_of(reduction.dtype);
}

}  // namespace

void Communicator::allreduce(const Call& call, std::span<const Piece> pieces,
                             const Reduction& reduction, std::string_view algorithm) {
  if (through_memory(Collective::allreduce, algorithm))
    return allreduce_in_memory(call, pieces, reduction);
  if (across_ && chosen_freely(Collective::allreduce, algorithm))
    return allreduce_across(call, pieces, reduction);
  require_algorithm(Collective::allreduce, size(), settings_, algorithm);
  guarded(call, [&] {
    const std::size_t bytes = bytes_of(pieces);
    // One piece is reduced where its result belongs; several are packed into one vector.
    const bool packed = pieces.size() != 1;
    if (!board_ && chosen_freely(Collective::allreduce, algorithm)) {
      agree_and_know_link(call, bytes);
      if (piggybacks(bytes, size_of(reduction.dtype))) {
        ++sequence_;
        const Buffer vector = packed ? pack(pieces) : pieces[0].output;
        const ConstBuffer mine = packed ? vector : pieces[0].input;
        if (explains_)
          explain(call, "over the network, piggybacked on the comparison of the calls (phase 0)");
        // Ranks that agree on the call but not on its length would misread the data.
        reduce_piggybacked(call, Extremes::of(fingerprint(call, bytes)), mine, vector, reduction);
        if (packed) unpack(pieces, vector);
        return;
      }
    }
    begin(call);
    const Buffer data = packed ? pack(pieces) : pieces[0].output;
    if (!packed) copy(data, pieces[0].input);
    const std::size_t count = count_of(reduction, data);
    prescale(reduction, data.data, count);
    const Layout layout{.rank = rank(), .chunks = Chunks::even(count, size()), .inputs = {}};
    run(Collective::allreduce, layout, {{}, data}, element_of(reduction), call, algorithm);
    finish(reduction, size(), data);
    if (packed) unpack(pieces, data);
  });
}

/// Whether an allreduce of so many bytes is piggybacked on phase 0, as that is faster. In
/// deterministic mode an element must not be reduced by another tree in a small array than in a
/// large one.
bool Communicator::piggybacks(std::size_t bytes, std::size_t item) {
  if (settings_.deterministic) return false;
  const auto found = piggybacks_.find({bytes, item});
  if (found != piggybacks_.end()) return found->second;
  if (piggybacks_.size() >= kMaxPlans) piggybacks_.clear();
  const int ranks = outward().size();
  const Link& link = link_for(bytes);
  const Layout layout{.rank = 0, .chunks = Chunks::even(bytes / item, ranks), .inputs = {}};
  const double phase_0 = settings_.check || across_ ? ceil_log2(ranks) * link.alpha : 0.0;
  const auto plain = candidates(Collective::allreduce, layout, item, link, settings_).front();
  return piggybacks_[{bytes, item}] =
             piggyback_seconds(bytes, ranks, link) < phase_0 + plain.cost.seconds;
}

/// An allreduce that is piggybacked on phase 0. Every rank reduces for itself, in the order of the
/// ranks.
void Communicator::reduce_piggybacked(const Call& call, const Extremes& said, ConstBuffer mine,
                                      Buffer result, const Reduction& reduction) {
  Transport& transport = outward();
  const auto contributions =
      std::make_shared<Contributions>(transport.rank(), transport.size(), mine);
  agree_by_messages(call, said, false, contributions);
  std::vector<const void*> all;
  for (int rank = 0; rank < transport.size(); ++rank) all.push_back(contributions->of(rank));
  void* out = result.data;
  reduce_many(reduction, {&out, 1}, all, mine.bytes / size_of(reduction.dtype), false);
}

/// The pieces' inputs, one after another, in memory of the call.
Buffer Communicator::pack(std::span<const Piece> pieces) {
  const Buffer data = allocate(bytes_of(pieces)).buffer();
  std::size_t offset = 0;
  for (const auto& piece : pieces) {
    copy(data.slice(offset, piece.input.bytes), piece.input);
    offset += piece.input.bytes;
  }
  return data;
}

void Communicator::reduce_scatter(const Call& call, ConstBuffer input, Buffer output,
                                  const Chunks& chunks, const Reduction& reduction,
                                  std::string_view algorithm) {
  if (through_memory(Collective::reduce_scatter, algorithm))
    return reduce_scatter_in_memory(call, input, output, chunks, reduction);
  perform(call, Collective::reduce_scatter, algorithm, [&] {
    const Buffer data = allocate(input.bytes).buffer();
    copy(data, input);
    prescale(reduction, data.data, chunks.total());
    const Layout layout{.rank = rank(), .chunks = chunks, .inputs = {}};
    run(Collective::reduce_scatter, layout, {{}, data}, element_of(reduction), call, algorithm);
    const auto mine = chunks[rank()];
    const std::size_t item = size_of(reduction.dtype);
    copy(output, data.slice(mine.offset * item, mine.count * item));
    finish(reduction, size(), output);
  });
}

void Communicator::reduce(const Call& call, ConstBuffer input, Buffer output,
                          const Reduction& reduction, int root, std::string_view algorithm) {
  if (through_memory(Collective::reduce, algorithm))
    return reduce_in_memory(call, {input, output}, reduction, root);
  perform(call, Collective::reduce, algorithm, [&] {
    const bool is_root = rank() == root;
    const Buffer data = is_root ? output : allocate(input.bytes).buffer();
    copy(data, input);
    const std::size_t count = count_of(reduction, data);
    prescale(reduction, data.data, count);
    const Layout layout{
        .rank = rank(), .chunks = Chunks::even(count, size()), .inputs = {}, .root = root};
    run(Collective::reduce, layout, {{}, data}, element_of(reduction), call, algorithm);
    if (is_root) finish(reduction, size(), output);
  });
}

void Communicator::broadcast(const Call& call, Buffer data, int root, std::string_view algorithm) {
  if (through_memory(Collective::broadcast, algorithm))
    return broadcast_in_memory(call, data, root);
  perform(call, Collective::broadcast, algorithm, [&] {
    const Layout layout{
        .rank = rank(), .chunks = Chunks::even(data.bytes, size()), .inputs = {}, .root = root};
    run(Collective::broadcast, layout, {{}, data}, {}, call, algorithm);
  });
}

Gathered Communicator::allgather(const Call& call, ConstBuffer mine, std::size_t rows,
                                 std::size_t row_bytes, std::string_view algorithm) {
  if (through_memory(Collective::allgather, algorithm))
    return collect_in_memory(call, mine, rows, row_bytes, kAllRanks);
  Gathered result;
  perform(call, Collective::allgather, algorithm, [&] {
    result = collect(call, Collective::allgather, mine, rows, row_bytes, 0, algorithm);
  });
  return result;
}

Gathered Communicator::gather(const Call& call, ConstBuffer mine, std::size_t rows,
                              std::size_t row_bytes, int root, std::string_view algorithm) {
  if (through_memory(Collective::gather, algorithm))
    return collect_in_memory(call, mine, rows, row_bytes, root);
  Gathered result;
  perform(call, Collective::gather, algorithm, [&] {
    result = collect(call, Collective::gather, mine, rows, row_bytes, root, algorithm);
  });
  if (rank() != root) result.data = Bytes();
  return result;
}

/// The common part of allgather and gather: learn how much each rank has, then move it.
Gathered Communicator::collect(const Call& call, Collective collective, ConstBuffer mine,
                               std::size_t rows, std::size_t row_bytes, int root,
                               std::string_view algorithm) {
  const auto counts = allocate_zeros<std::size_t>(size());
  counts[rank()] = rows;
  const Layout ones{.rank = rank(), .chunks = Chunks::even(size(), size()), .inputs = {}};
  run(Collective::allgather, ones, {{}, buffer_of(counts)}, {sizeof(std::size_t)}, call, {});

  const Layout layout{
      .rank = rank(), .chunks = bytes_of(counts, row_bytes), .inputs = {}, .root = root};
  const Bytes data = allocate(layout.chunks.total());
  copy(chunk_of(data.buffer(), layout.chunks[rank()]), mine);
  run(collective, layout, {{}, data.buffer()}, {}, call, algorithm);
  return {{counts.begin(), counts.end()}, data};
}

Communicator::Scattered Communicator::scatter(const Call& call, ConstBuffer all, const Parts& parts,
                                              int root, std::string_view algorithm) {
  if (through_memory(Collective::scatter, algorithm))
    return scatter_in_memory(call, all, parts, root);
  Scattered result;
  perform(call, Collective::scatter, algorithm, [&] {
    // The root alone knows what comes, and sends it: the rows of all ranks, the length of a row,
    // the header.
    const auto head = allocate_zeros<std::int64_t>(size() + 2 + kHeaderWords);
    const auto lengths = head.subspan(size(), 2);
    const auto header = head.subspan(size() + 2);
    if (rank() == root) {
      std::copy(parts.rows.begin(), parts.rows.end(), head.begin());
      lengths[0] = static_cast<std::int64_t>(parts.row_bytes);
      lengths[1] = static_cast<std::int64_t>(parts.header.size());
      std::copy(parts.header.begin(), parts.header.end(), header.begin());
    }
    const Layout words{
        .rank = rank(), .chunks = Chunks::even(head.size(), size()), .inputs = {}, .root = root};
    run(Collective::broadcast, words, {{}, buffer_of(head)}, {sizeof(std::int64_t)}, call, {});

    const std::vector<std::size_t> rows(head.begin(), head.begin() + size());
    const Layout layout{
        .rank = rank(), .chunks = bytes_of(rows, lengths[0]), .inputs = {}, .root = root};
    const Buffer data = allocate(layout.chunks.total()).buffer();
    if (rank() == root) copy(data, all);
    run(Collective::scatter, layout, {{}, data}, {}, call, algorithm);

    const auto mine = layout.chunks[rank()];
    const Bytes part(mine.count);
    copy(part.buffer(), chunk_of(data, mine));
    result = {rows[rank()], part, {header.begin(), header.begin() + lengths[1]}};
  });
  return result;
}

Gathered Communicator::alltoall(const Call& call, ConstBuffer all,
                                std::span<const std::size_t> rows, std::size_t row_bytes,
                                std::string_view algorithm) {
  if (through_memory(Collective::alltoall, algorithm))
    return alltoall_in_memory(call, all, rows, row_bytes);
  Gathered result;
  perform(call, Collective::alltoall, algorithm, [&] {
    // First the lengths: an alltoall of one number to each rank.
    const auto sent = allocate_zeros<std::size_t>(size());
    const auto received = allocate_zeros<std::size_t>(size());
    std::copy(rows.begin(), rows.end(), sent.begin());
    const Chunks ones = Chunks::even(size(), size());
    run(Collective::alltoall, {.rank = rank(), .chunks = ones, .inputs = ones},
        {buffer_of(sent), buffer_of(received)}, {sizeof(std::size_t)}, call, {});

    const Layout layout{.rank = rank(),
                        .chunks = bytes_of(received, row_bytes),
                        .inputs = bytes_of(rows, row_bytes)};
    const Bytes data = allocate(layout.chunks.total());
    run(Collective::alltoall, layout, {all, data.buffer()}, {}, call, algorithm);
    result = {{received.begin(), received.end()}, data};
  });
  return result;
}

}  // namespace ronde
