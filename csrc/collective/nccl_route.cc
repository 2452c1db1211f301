#include "collective/nccl_route.h"

#include <bit>

#include "collective/memory.h"
#include "collective/nccl_chunks.h"
#include "collective/nccl_connection.h"
#include "collective/nccl_enqueued.h"
#include "collective/orders.h"
#include "cuda/reduce.h"

namespace ronde {
namespace {

bool may_reduce(Lane& lane, const Operation& operation, Collective collective,
                const Reduction& reduction, std::string_view algorithm) {
  const auto dtype = reduction.dtype;
  const bool lacks = dtype == DType::boolean || dtype == DType::int16 || dtype == DType::uint16;
  const bool orders = reduction.op == ReduceOp::min || reduction.op == ReduceOp::max;
  return may_use_nccl(lane, operation, collective, algorithm) && !reduction.adaptive &&
         !lane.settings().deterministic && !lacks && !(orders && is_floating(dtype));
}

/// What is done to contributions before NCCL reduces them, and to its result.
struct Scaling {
  Reduction before, after;
};

Scaling scaling_of(const Reduction& reduction, int ranks) {
  Scaling scaling{
      {.dtype = reduction.dtype, .prescale = reduction.prescale},
      {.dtype = reduction.dtype, .divisor = reduction.divisor, .postscale = reduction.postscale}};
  if (!reduction.averages_halves()) return scaling;
  // The sum may not fit the type that the average fits. A power of two changes no bits but the last
  // of denormals.
  const double part = 1.0 / static_cast<double>(std::bit_ceil(static_cast<unsigned>(ranks)));
  scaling.before.prescale = part;
  scaling.after.divisor *= part;
  scaling.after.postscale *= reduction.prescale;
  return scaling;
}

/// To `to`, unless nothing is to be done. Returns where the result is.
const void* scale(const Enqueued& enqueued, const Reduction& scaling, void* to, const void* from,
                  std::size_t count) {
  if (!scaling.scales()) return from;
  cuda::scale(enqueued.device(), enqueued.stream(), scaling, to, from, count);
  return to;
}

}  // namespace

Task<bool> allreduce_over_nccl(Lane& lane, Operation& operation, std::span<const Piece> pieces,
                               Reduction reduction, std::string_view algorithm) {
  if (!may_reduce(lane, operation, Collective::allreduce, reduction, algorithm)) co_return false;
  Enqueued enqueued(lane, operation, pieces);
  const auto bytes = bytes_of(pieces);
  const bool connected = co_await enqueued.begin(bytes);
  if (!connected) co_return false;

  const bool packed = pieces.size() != 1;
  auto* const out = packed ? enqueued.scratch(bytes) : pieces[0].output.data;
  const void* in = packed ? out : pieces[0].input.data;
  if (packed) cuda::pack(enqueued.device(), enqueued.stream(), inputs_of(pieces), out);
  const auto scaling = scaling_of(reduction, lane.size());
  const auto count = bytes / size_of(reduction.dtype);
  in = scale(enqueued, scaling.before, out, in, count);
  enqueued.nccl()->call([&](cuda::NcclCommunicator& nccl) {
    nccl.all_reduce(enqueued.stream(), {in, out, count, reduction.dtype}, reduction.op);
  });
  co_await enqueued.nccl();
  scale(enqueued, scaling.after, out, out, count);
  if (packed) cuda::unpack(enqueued.device(), enqueued.stream(), out, outputs_of(pieces));
  enqueued.end();
  co_return true;
}

Task<bool> reduce_scatter_over_nccl(Lane& lane, Operation& operation, ConstBuffer input,
                                    Buffer output, const Chunks& chunks, Reduction reduction,
                                    std::string_view algorithm) {
  if (!may_reduce(lane, operation, Collective::reduce_scatter, reduction, algorithm))
    co_return false;
  const Piece touched{input, output};
  Enqueued enqueued(lane, operation, {&touched, 1});
  const bool connected = co_await enqueued.begin(input.bytes);
  if (!connected) co_return false;

  const auto scaling = scaling_of(reduction, lane.size());
  const auto* in = static_cast<const std::byte*>(input.data);
  if (scaling.before.scales()) {
    auto* const scaled = enqueued.scratch(input.bytes);
    scale(enqueued, scaling.before, scaled, in, chunks.total());
    in = scaled;
  }
  const auto mine = chunks.count(lane.rank());
  enqueued.nccl()->call([&](cuda::NcclCommunicator& nccl) {
    reduce_scatter(nccl, enqueued.stream(), in, output.data, chunks, reduction);
  });
  co_await enqueued.nccl();
  scale(enqueued, scaling.after, output.data, output.data, mine);
  enqueued.end();
  co_return true;
}

Task<bool> reduce_over_nccl(Lane& lane, Operation& operation, Piece piece, Reduction reduction,
                            int root, std::string_view algorithm) {
  if (!may_reduce(lane, operation, Collective::reduce, reduction, algorithm)) co_return false;
  const bool is_root = lane.rank() == root;
  const ConstBuffer input = piece.input;
  const Piece touched{input, is_root ? piece.output : Buffer{}};
  Enqueued enqueued(lane, operation, {&touched, 1});
  const bool connected = co_await enqueued.begin(input.bytes);
  if (!connected) co_return false;

  const auto scaling = scaling_of(reduction, lane.size());
  const auto count = elements_of(reduction, input);
  std::byte* out = is_root ? piece.output.data : nullptr;
  const bool has_room = is_root || !scaling.before.scales();
  const void* in = scale(enqueued, scaling.before, has_room ? out : enqueued.scratch(input.bytes),
                         input.data, count);
  enqueued.nccl()->call([&](cuda::NcclCommunicator& nccl) {
    nccl.reduce(enqueued.stream(), {in, out, count, reduction.dtype}, reduction.op, root);
  });
  co_await enqueued.nccl();
  if (is_root) scale(enqueued, scaling.after, out, out, count);
  enqueued.end();
  co_return true;
}

Task<bool> broadcast_over_nccl(Lane& lane, Operation& operation, Buffer data, int root,
                               std::string_view algorithm) {
  if (!may_use_nccl(lane, operation, Collective::broadcast, algorithm)) co_return false;
  const Piece touched{data, data};
  Enqueued enqueued(lane, operation, {&touched, 1});
  const bool connected = co_await enqueued.begin(data.bytes);
  if (!connected) co_return false;
  enqueued.nccl()->call([&](cuda::NcclCommunicator& nccl) {
    nccl.broadcast(enqueued.stream(), {data.data, data.data, data.bytes, DType::uint8}, root);
  });
  co_await enqueued.nccl();
  enqueued.end();
  co_return true;
}

}  // namespace ronde
