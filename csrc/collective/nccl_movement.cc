#include "collective/nccl_movement.h"

#include <algorithm>
#include <functional>

#include "collective/memory.h"
#include "collective/nccl_enqueued.h"

namespace ronde {
namespace {

void broadcast_each(cuda::NcclCommunicator& nccl, cuda::StreamHandle stream, ConstBuffer mine,
                    std::byte* out, const Chunks& chunks) {
  cuda::NcclGroup group;
  for (int rank = 0; rank < chunks.size(); ++rank) {
    const Range chunk = chunks[rank];
    auto* const part = out + chunk.offset;
    const void* const in = rank == nccl.rank() ? mine.data : part;
    if (chunk.count > 0) nccl.broadcast(stream, {in, part, chunk.count, DType::uint8}, rank);
  }
  group.end();
}

/// What goes to each rank, and what comes from each; either may be empty.
struct Exchange {
  const std::byte* in;
  Chunks sent;
  std::byte* out;
  Chunks received;
};

void exchange(cuda::NcclCommunicator& nccl, cuda::StreamHandle stream, const Exchange& parts) {
  cuda::NcclGroup group;
  for (int rank = 0; rank < nccl.size(); ++rank) {
    const Range to = parts.sent[rank], from = parts.received[rank];
    if (to.count > 0) nccl.send(stream, parts.in + to.offset, to.count, rank);
    if (from.count > 0) nccl.receive(stream, parts.out + from.offset, from.count, rank);
  }
  group.end();
}

Chunks only(int size, int rank, std::size_t bytes) {
  std::vector<std::size_t> all(static_cast<std::size_t>(size));
  all[static_cast<std::size_t>(rank)] = bytes;
  return Chunks::of(all);
}

bool are_even(const Chunks& chunks) {
  return chunks.largest() * static_cast<std::size_t>(chunks.size()) == chunks.total();
}

/// The result, of so many bytes; null where nothing comes.
std::byte* receive(Enqueued& enqueued, Gathered& all, std::size_t bytes) {
  if (bytes == 0) return nullptr;
  all.there = enqueued.receive(bytes);
  return all.there->data();
}

}  // namespace

bool may_move_over_nccl(Lane& lane, const Operation& operation, Collective collective,
                        std::string_view algorithm) {
  return may_use_nccl(lane, operation, collective, algorithm) && !lane.nccl()->refused();
}

Task<bool> allgather_over_nccl(Lane& lane, Operation& operation, Contribution mine, Gathered& all) {
  const Piece touched{mine.data, {}};
  Enqueued enqueued(lane, operation, {&touched, 1});
  const bool connected = co_await enqueued.begin(mine.data.bytes);
  if (!connected) co_return false;

  const Chunks chunks = bytes_of(all.rows, mine.row_bytes);
  auto* const out = receive(enqueued, all, chunks.total());
  enqueued.nccl()->call([&](cuda::NcclCommunicator& nccl) {
    if (chunks.total() == 0) return;
    if (are_even(chunks))
      nccl.all_gather(enqueued.stream(), {mine.data.data, out, mine.data.bytes, DType::uint8});
    else
      broadcast_each(nccl, enqueued.stream(), mine.data, out, chunks);
  });
  co_await enqueued.nccl();
  enqueued.end();
  co_return true;
}

Task<bool> gather_over_nccl(Lane& lane, Operation& operation, Contribution mine, int root,
                            Gathered& all) {
  const Piece touched{mine.data, {}};
  Enqueued enqueued(lane, operation, {&touched, 1});
  const bool connected = co_await enqueued.begin(mine.data.bytes);
  if (!connected) co_return false;

  const bool is_root = lane.rank() == root;
  const Chunks received =
      is_root ? bytes_of(all.rows, mine.row_bytes) : Chunks::even(0, lane.size());
  const Exchange parts{mine.data.data, only(lane.size(), root, mine.data.bytes),
                       receive(enqueued, all, received.total()), received};
  enqueued.nccl()->call(
      [&](cuda::NcclCommunicator& nccl) { exchange(nccl, enqueued.stream(), parts); });
  co_await enqueued.nccl();
  enqueued.end();
  co_return true;
}

Task<bool> alltoall_over_nccl(Lane& lane, Operation& operation, Rows mine, Gathered& all) {
  const Piece touched{mine.data, {}};
  Enqueued enqueued(lane, operation, {&touched, 1});
  const bool connected = co_await enqueued.begin(mine.data.bytes);
  if (!connected) co_return false;

  const Chunks received = bytes_of(all.rows, mine.bytes);
  const Exchange parts{mine.data.data, bytes_of(mine.counts, mine.bytes),
                       receive(enqueued, all, received.total()), received};
  enqueued.nccl()->call(
      [&](cuda::NcclCommunicator& nccl) { exchange(nccl, enqueued.stream(), parts); });
  co_await enqueued.nccl();
  enqueued.end();
  co_return true;
}

}  // namespace ronde
