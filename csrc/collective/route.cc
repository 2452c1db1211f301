#include "collective/route.h"

#include "collective/nccl_movement.h"
#include "collective/nccl_route.h"

namespace ronde {
namespace {

/// Pieces in place that follow one another become one, which needs not be packed.
void join_neighbours(std::vector<Piece>& pieces) {
  std::vector<Piece> joined;
  for (const auto& piece : pieces) {
    const bool in_place = piece.input.data == piece.output.data;
    if (!joined.empty() && in_place) {
      auto& [input, output] = joined.back();
      if (input.data == output.data && input.data + input.bytes == piece.input.data) {
        input.bytes += piece.input.bytes;
        output.bytes += piece.output.bytes;
        continue;
      }
    }
    joined.push_back(piece);
  }
  pieces = std::move(joined);
}

}  // namespace

Task<> Route::allreduce(Operation& operation, std::span<const Piece> pieces, Reduction reduction,
                        std::string_view algorithm) {
  reduction = operation.among_ranks(reduction);
  if (on_gpu(pieces) && !takes_gpus())
    return stage_allreduce(operation, pieces, reduction, algorithm);
  return begin_allreduce(operation, pieces, reduction, algorithm);
}

Task<> Route::stage_allreduce(Operation& operation, std::span<const Piece> pieces,
                              Reduction reduction, std::string_view algorithm) {
  const bool done = co_await allreduce_over_nccl(lane_, operation, pieces, reduction, algorithm);
  if (done) co_return;
  Staging staging(operation);
  auto here = staging.pieces(pieces);
  if (!reduction.adaptive) join_neighbours(here);
  co_await staging.fetch();
  co_await begin_allreduce(operation, here, reduction, algorithm);
  staging.store();
}

Task<> Route::reduce_scatter(Operation& operation, ConstBuffer input, Buffer output,
                             const Chunks& chunks, Reduction reduction,
                             std::string_view algorithm) {
  reduction = operation.among_ranks(reduction);
  if (stages(input))
    return stage_reduce_scatter(operation, input, output, chunks, reduction, algorithm);
  return begin_reduce_scatter(operation, input, output, chunks, reduction, algorithm);
}

Task<> Route::stage_reduce_scatter(Operation& operation, ConstBuffer input, Buffer output,
                                   const Chunks& chunks, Reduction reduction,
                                   std::string_view algorithm) {
  const bool done = co_await reduce_scatter_over_nccl(lane_, operation, input, output, chunks,
                                                      reduction, algorithm);
  if (done) co_return;
  Staging staging(operation);
  const Buffer in = staging.input(input), out = staging.output(output);
  co_await staging.fetch();
  co_await begin_reduce_scatter(operation, in, out, chunks, reduction, algorithm);
  staging.store();
}

Task<> Route::reduce(Operation& operation, Piece piece, Reduction reduction, int root,
                     std::string_view algorithm) {
  reduction = operation.among_ranks(reduction);
  if (stages(piece.input)) return stage_reduce(operation, piece, reduction, root, algorithm);
  return begin_reduce(operation, piece, reduction, root, algorithm);
}

Task<> Route::stage_reduce(Operation& operation, Piece piece, Reduction reduction, int root,
                           std::string_view algorithm) {
  const bool done = co_await reduce_over_nccl(lane_, operation, piece, reduction, root, algorithm);
  if (done) co_return;
  Staging staging(operation);
  const Piece here = staging.piece(piece);
  co_await staging.fetch();
  co_await begin_reduce(operation, here, reduction, root, algorithm);
  staging.store();
}

Task<> Route::broadcast(Operation& operation, Buffer data, int root, std::string_view algorithm) {
  if (stages(data)) return stage_broadcast(operation, data, root, algorithm);
  return begin_broadcast(operation, data, root, algorithm);
}

Task<> Route::stage_broadcast(Operation& operation, Buffer data, int root,
                              std::string_view algorithm) {
  const bool done = co_await broadcast_over_nccl(lane_, operation, data, root, algorithm);
  if (done) co_return;
  Staging staging(operation);
  const Buffer here = lane_.rank() == root ? staging.input(data) : staging.output(data);
  co_await staging.fetch();
  co_await begin_broadcast(operation, here, root, algorithm);
  staging.store();
}

// Where rows may go over NCCL, the ranks first agree on their numbers, in the same collective of
// rows without bytes.

Task<Gathered> Route::allgather(Operation& operation, Contribution mine,
                                std::string_view algorithm) {
  if (stages(mine.data)) return stage_allgather(operation, mine, algorithm);
  return begin_allgather(operation, mine, algorithm);
}

Task<Gathered> Route::stage_allgather(Operation& operation, Contribution mine,
                                      std::string_view algorithm) {
  if (may_move_over_nccl(lane_, operation, Collective::allgather, algorithm)) {
    const Contribution none{{}, mine.rows, 0};
    Gathered all = co_await begin_allgather(operation, none, algorithm);
    operation.agreed = true;
    const bool done = co_await allgather_over_nccl(lane_, operation, mine, all);
    if (done) co_return all;
  }
  Staging staging(operation);
  mine.data = staging.input(mine.data);
  co_await staging.fetch();
  co_return co_await begin_allgather(operation, mine, algorithm);
}

Task<Gathered> Route::gather(Operation& operation, Contribution mine, int root,
                             std::string_view algorithm) {
  if (stages(mine.data)) return stage_gather(operation, mine, root, algorithm);
  return begin_gather(operation, mine, root, algorithm);
}

Task<Gathered> Route::stage_gather(Operation& operation, Contribution mine, int root,
                                   std::string_view algorithm) {
  if (may_move_over_nccl(lane_, operation, Collective::gather, algorithm)) {
    const Contribution none{{}, mine.rows, 0};
    Gathered all = co_await begin_gather(operation, none, root, algorithm);
    operation.agreed = true;
    const bool done = co_await gather_over_nccl(lane_, operation, mine, root, all);
    if (done) co_return all;
  }
  Staging staging(operation);
  mine.data = staging.input(mine.data);
  co_await staging.fetch();
  co_return co_await begin_gather(operation, mine, root, algorithm);
}

Task<Scattered> Route::scatter(Operation& operation, Rows all, std::span<const std::int64_t> header,
                               int root, std::string_view algorithm) {
  if (stages(all.data)) return stage_scatter(operation, all, header, root, algorithm);
  return begin_scatter(operation, all, header, root, algorithm);
}

Task<Scattered> Route::stage_scatter(Operation& operation, Rows all,
                                     std::span<const std::int64_t> header, int root,
                                     std::string_view algorithm) {
  Staging staging(operation);
  all.data = staging.input(all.data);
  co_await staging.fetch();
  co_return co_await begin_scatter(operation, all, header, root, algorithm);
}

Task<Gathered> Route::alltoall(Operation& operation, Rows all, std::string_view algorithm) {
  if (stages(all.data)) return stage_alltoall(operation, all, algorithm);
  return begin_alltoall(operation, all, algorithm);
}

Task<Gathered> Route::stage_alltoall(Operation& operation, Rows all, std::string_view algorithm) {
  if (may_move_over_nccl(lane_, operation, Collective::alltoall, algorithm)) {
    const Rows none{{}, all.counts, 0};
    Gathered received = co_await begin_alltoall(operation, none, algorithm);
    operation.agreed = true;
    const bool done = co_await alltoall_over_nccl(lane_, operation, all, received);
    if (done) co_return received;
  }
  Staging staging(operation);
  all.data = staging.input(all.data);
  co_await staging.fetch();
  co_return co_await begin_alltoall(operation, all, algorithm);
}

}  // namespace ronde
