#include "collective/nccl_chunks.h"

#include <cstddef>

namespace ronde {
namespace {

bool are_even(const Chunks& chunks) {
  return chunks.largest() * static_cast<std::size_t>(chunks.size()) == chunks.total();
}

/// Calls `call(rank, offset, count)` for each chunk that is not empty, as one operation.
template <class Call>
void for_each_chunk(const Chunks& chunks, Call call) {
  cuda::NcclGroup group;
  for (int rank = 0; rank < chunks.size(); ++rank) {
    const Range chunk = chunks[rank];
    if (chunk.count > 0) call(rank, chunk.offset, chunk.count);
  }
  group.end();
}

}  // namespace

void reduce_scatter(cuda::NcclCommunicator& nccl, cuda::StreamHandle stream, const void* in,
                    void* out, const Chunks& chunks, const Reduction& reduction) {
  const auto dtype = reduction.dtype;
  const auto op = reduction.op;
  if (are_even(chunks)) {
    nccl.reduce_scatter(stream, {in, out, chunks.count(nccl.rank()), dtype}, op);
    return;
  }
  for_each_chunk(chunks, [&](int rank, std::size_t offset, std::size_t count) {
    const auto* const part = static_cast<const std::byte*>(in) + offset * size_of(dtype);
    nccl.reduce(stream, {part, rank == nccl.rank() ? out : nullptr, count, dtype}, op, rank);
  });
}

void all_gather(cuda::NcclCommunicator& nccl, cuda::StreamHandle stream, const void* in, void* out,
                const Chunks& chunks, DType dtype) {
  if (chunks.total() == 0) return;
  if (are_even(chunks)) {
    nccl.all_gather(stream, {in, out, chunks.count(nccl.rank()), dtype});
    return;
  }
  for_each_chunk(chunks, [&](int rank, std::size_t offset, std::size_t count) {
    auto* const part = static_cast<std::byte*>(out) + offset * size_of(dtype);
    nccl.broadcast(stream, {rank == nccl.rank() ? in : part, part, count, dtype}, rank);
  });
}

}  // namespace ronde
