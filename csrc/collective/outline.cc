#include "collective/outline.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "collective/memory.h"
#include "kernels/neutral.h"

namespace ronde {
namespace {

/// Of what is never begun.
template <class T>
Task<T> nothing() {
  T result{};
  co_return result;
}

template <>
Task<> nothing<void>() {
  co_return;
}

Buffer neutral(Operation& operation, const Outline& outline) {
  const Buffer data = operation.allocate(outline.bytes).buffer();
  fill_neutral(outline.reduction, data);
  return data;
}

Task<> allreduce(Route& route, Operation& operation, const Outline& outline) {
  const Buffer data = neutral(operation, outline);
  std::vector<Piece> pieces;
  std::size_t offset = 0;
  for (const auto bytes : outline.counts) {
    const Buffer part = data.slice(offset, bytes);
    pieces.push_back({part, part});
    offset += bytes;
  }
  co_await route.allreduce(operation, pieces, outline.reduction, outline.algorithm);
}

Task<> reduce_scatter(Route& route, Operation& operation, const Outline& outline, int rank) {
  const Buffer data = neutral(operation, outline);
  const Chunks chunks = Chunks::of(outline.counts);
  const std::size_t bytes = chunks.count(rank) * size_of(outline.reduction.dtype);
  const Buffer part = operation.allocate(bytes).buffer();
  co_await route.reduce_scatter(operation, data, part, chunks, outline.reduction,
                                outline.algorithm);
}

Task<> alltoall(Route& route, Operation& operation, const Outline& outline) {
  const Rows rows{{}, outline.counts, outline.bytes};
  co_await route.alltoall(operation, rows, outline.algorithm);
}

/// Throws away what it makes.
template <class T>
Task<> without_result(Task<T> task) {
  co_await std::move(task);
}

Task<> take_part(Routes& routes, Operation& operation, const Outline& outline) {
  const auto& [collective, algorithm, reduction, bytes, counts, root] = outline;
  auto& route = routes.choose(collective.value_or(Collective::broadcast), algorithm);
  if (!collective) return route.barrier(operation);
  const Contribution no_rows{{}, 0, bytes};
  switch (*collective) {
    case Collective::allreduce:
      return allreduce(route, operation, outline);
    case Collective::reduce_scatter:
      return reduce_scatter(route, operation, outline, routes.lane().rank());
    case Collective::reduce: {
      const Buffer data = neutral(operation, outline);
      return route.reduce(operation, {data, data}, reduction, root, algorithm);
    }
    case Collective::broadcast:
      return route.broadcast(operation, operation.allocate(bytes).buffer(), root, algorithm);
    case Collective::allgather:
      return without_result(route.allgather(operation, no_rows, algorithm));
    case Collective::gather:
      return without_result(route.gather(operation, no_rows, root, algorithm));
    case Collective::scatter:
      return without_result(route.scatter(operation, {}, {}, root, algorithm));
    case Collective::alltoall:
      return alltoall(route, operation, outline);
  }
  return route.barrier(operation);
}

}  // namespace

Outline Outline::allreduce(std::vector<std::size_t> pieces, const Reduction& reduction,
                           std::string_view algorithm) {
  Outline outline;
  outline.collective = Collective::allreduce;
  outline.algorithm = algorithm;
  outline.reduction = reduction;
  outline.bytes = std::accumulate(pieces.begin(), pieces.end(), std::size_t{0});
  outline.counts = std::move(pieces);
  return outline;
}

Outline& Recording::add(Collective collective, std::string_view algorithm, std::size_t bytes,
                        int root) {
  auto& outline = outlines.emplace_back();
  outline.collective = collective;
  outline.algorithm = algorithm;
  outline.bytes = bytes;
  outline.root = root;
  return outline;
}

Task<> Recording::begin_allreduce(Operation&, std::span<const Piece> pieces, Reduction reduction,
                                  std::string_view algorithm) {
  std::vector<std::size_t> bytes;
  for (const auto& piece : pieces) bytes.push_back(piece.input.bytes);
  outlines.push_back(Outline::allreduce(std::move(bytes), reduction, algorithm));
  return nothing<void>();
}

Task<> Recording::begin_reduce_scatter(Operation&, ConstBuffer input, Buffer, const Chunks& chunks,
                                       Reduction reduction, std::string_view algorithm) {
  auto& outline = add(Collective::reduce_scatter, algorithm, input.bytes);
  outline.reduction = reduction;
  for (int rank = 0; rank < chunks.size(); ++rank) outline.counts.push_back(chunks.count(rank));
  return nothing<void>();
}

Task<> Recording::begin_reduce(Operation&, Piece piece, Reduction reduction, int root,
                               std::string_view algorithm) {
  add(Collective::reduce, algorithm, piece.input.bytes, root).reduction = reduction;
  return nothing<void>();
}

Task<> Recording::begin_broadcast(Operation&, Buffer data, int root, std::string_view algorithm) {
  add(Collective::broadcast, algorithm, data.bytes, root);
  return nothing<void>();
}

Task<Gathered> Recording::begin_allgather(Operation&, Contribution mine,
                                          std::string_view algorithm) {
  add(Collective::allgather, algorithm, mine.row_bytes);
  return nothing<Gathered>();
}

Task<Gathered> Recording::begin_gather(Operation&, Contribution mine, int root,
                                       std::string_view algorithm) {
  add(Collective::gather, algorithm, mine.row_bytes, root);
  return nothing<Gathered>();
}

Task<Scattered> Recording::begin_scatter(Operation&, Rows, std::span<const std::int64_t>, int root,
                                         std::string_view algorithm) {
  add(Collective::scatter, algorithm, 0, root);
  return nothing<Scattered>();
}

Task<Gathered> Recording::begin_alltoall(Operation&, Rows all, std::string_view algorithm) {
  add(Collective::alltoall, algorithm, all.bytes).counts.resize(all.counts.size());
  return nothing<Gathered>();
}

Task<> Recording::barrier(Operation&) {
  outlines.emplace_back();
  return nothing<void>();
}

std::string refusal(const Description& description, const std::vector<int>& joined,
                    const std::vector<int>& members) {
  if (description.call.needs_all || description.outlines.empty())
    return "that call needs all ranks: make it where none is in ronde.join";
  for (const auto& outline : description.outlines) {
    const auto is_root =
        outline.collective == Collective::broadcast || outline.collective == Collective::scatter;
    if (is_root && std::ranges::find(joined, outline.root) != joined.end())
      return "rank " + std::to_string(members[outline.root]) +
             " has joined, so it has no data to send; take a root that has not";
    if (!has_neutral(outline.reduction))
      return "a rank that has joined has no value for a product with a prescale_factor; multiply "
             "before the call";
  }
  return {};
}

Task<> take_part(Routes& routes, Operation& operation, std::vector<Outline> outlines) {
  for (const auto& outline : outlines) {
    const auto held = operation.held();
    co_await take_part(routes, operation, outline);
    operation.release(held);
    operation.agreed = true;  // on all that follows
  }
}

}  // namespace ronde
