#include "collective/nccl_movement.h"

#include "collective/memory.h"
#include "collective/nccl_chunks.h"
#include "collective/nccl_enqueued.h"

namespace ronde {
namespace {

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
    all_gather(nccl, enqueued.stream(), mine.data.data, out, chunks, DType::uint8);
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
