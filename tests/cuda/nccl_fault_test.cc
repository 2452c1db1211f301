// What goes wrong among the ranks of NCCL: calls that do not belong together, ranks that never
// come. With the fake library (fake_nccl.cc) alone, which says what is wrong; NVIDIA's would wait.
#include <unistd.h>

#include <barrier>
#include <cstdio>
#include <optional>
#include <set>

#include "nccl_ranks.h"

namespace {

using namespace ronde;
using namespace ronde::cuda;
using namespace ronde::cuda::testing;

constexpr std::size_t kBytes = 64;

std::string await_error(const Rank& rank) {
  auto error = rank.nccl.error();
  for (; error.empty(); error = rank.nccl.error()) nap();
  return error;
}

// Calls that do not belong together ---------------------------------------------------------------

/// What a rank calls, with some memory.
using Calls = std::function<void(Rank&, std::byte*)>;

Calls reduces(std::size_t count, DType dtype = DType::float32, ReduceOp op = ReduceOp::sum) {
  return [=](Rank& rank, std::byte* at) {
    rank.nccl.all_reduce(rank.stream, {at, at, count, dtype}, op);
  };
}

Calls broadcasts(std::size_t count, int root) {
  return [=](Rank& rank, std::byte* at) {
    rank.nccl.broadcast(rank.stream, {at, at, count, DType::uint8}, root);
  };
}

Calls sends(std::size_t bytes, int peer) {
  return [=](Rank& rank, std::byte* at) { rank.nccl.send(rank.stream, at, bytes, peer); };
}

Calls receives(std::size_t bytes, int peer) {
  return [=](Rank& rank, std::byte* at) { rank.nccl.receive(rank.stream, at, bytes, peer); };
}

Calls nothing() {
  return [](Rank&, std::byte*) {};
}

Calls together(const std::vector<Calls>& all) {
  return [=](Rank& rank, std::byte* at) {
    NcclGroup group;
    for (const auto& calls : all) calls(rank, at);
    group.end();
  };
}

/// The ranks `told` are told of all `parts`, the others of nothing. No memory is written, and when
/// aborted all streams go on.
void check_report(const std::vector<Calls>& of, const std::set<int>& told,
                  const std::vector<std::string>& parts) {
  const auto size = static_cast<int>(of.size());
  std::barrier all(size);
  with_ranks(size, [&](Rank& rank) {
    const OnDevice memory(rank.device, rank.stream, kBytes);
    const auto before = memory.bytes();
    // The error may come before the call, which is refused then.
    const auto refused =
        thrown_by([&] { of[static_cast<std::size_t>(rank.nccl.rank())](rank, memory.data()); });
    CHECK(refused.empty() || told.contains(rank.nccl.rank()));
    if (told.contains(rank.nccl.rank())) {
      const auto error = await_error(rank);
      for (const auto& part : parts) {
        if (!contains(error, part)) std::fprintf(stderr, "%s\n", error.c_str());
        CHECK(contains(error, part));
      }
      CHECK(contains(thrown_by([&] { rank.nccl.ready(); }), error));
    }
    all.arrive_and_wait();
    if (!told.contains(rank.nccl.rank())) {
      CHECK(rank.nccl.error().empty());
      rank.settle();
    }
    rank.nccl.abort();
    rank.stream.synchronise();
    CHECK(memory.bytes() == before);
  });
}

void check_mismatches() {
  check_report({reduces(4), broadcasts(4, 0)}, {0, 1},
               {"rank 0 in ncclAllReduce(4 ncclFloat32, ncclSum)",
                "rank 1 in ncclBroadcast(4 ncclUint8, root rank 0)", "but"});
  check_report({reduces(4), reduces(5)}, {0, 1}, {"rank 0", "(4 ", "rank 1", "(5 "});
  check_report({reduces(4), reduces(4), reduces(4, DType::int32)}, {0, 1, 2},
               {"rank 2", "ncclInt32", "ncclFloat32"});
  check_report({reduces(4), reduces(4, DType::float32, ReduceOp::max)}, {0, 1},
               {"ncclSum", "ncclMax"});
  check_report({broadcasts(4, 0), broadcasts(4, 1)}, {0, 1}, {"root rank 0", "root rank 1"});
  // Only those are told that take part.
  check_report({sends(8, 1), receives(7, 0), nothing()}, {0, 1},
               {"rank 0 in ncclSend(8 ncclUint8, to rank 1)",
                "rank 1 in ncclRecv(7 ncclUint8, from rank 0)"});
  check_report({sends(7, 1), receives(8, 0)}, {0, 1}, {"(7 ", "(8 "});
}

void check_deadlocks() {
  const std::vector<std::string> parts = {"wait for each other",
                                          "rank 0 in ncclSend(8 ncclUint8, to rank 1)",
                                          "rank 1 in ncclSend(8 ncclUint8, to rank 0)"};
  const auto one_by_one = [](int peer) -> Calls {
    return [=](Rank& rank, std::byte* at) {
      sends(8, peer)(rank, at);
      rank.settle();
      receives(8, peer)(rank, at);
    };
  };
  check_report({together({sends(8, 1)}), together({sends(8, 0)})}, {0, 1}, parts);
  check_report({sends(8, 1), sends(8, 0), nothing()}, {0, 1}, parts);
  check_report({sends(8, 1), sends(8, 2), sends(8, 0)}, {0, 1, 2},
               {"wait for each other", "rank 0", "rank 1", "rank 2"});
  check_report({reduces(4), sends(8, 0)}, {0, 1},
               {"wait for each other", "rank 0 in ncclAllReduce", "rank 1 in ncclSend"});
  check_report({sends(8, 0), nothing()}, {0}, {"rank 0 in ncclSend(8 ncclUint8, to rank 0)"});
  check_report({one_by_one(1), one_by_one(0)}, {0, 1}, parts);
}

/// The functions as they are, whose sends have a type.
void check_types_of_messages() {
  const auto& nccl = Nccl::get();
  const auto id = nccl.unique_id();
  in_parallel(2, [&](int r) {
    Device& device = Device::get(0);
    const Device::Current current(device);
    const Stream stream(device);
    const OnDevice memory(device, stream, kBytes);
    NcclHandle handle = nullptr;
    nccl.check(nccl.CommInitRank(&handle, 2, id, r), "to begin");
    int count = 0;
    nccl.check(nccl.CommCount(handle, &count), "to count");
    CHECK(count == 2);
    if (r == 0) nccl.check(nccl.Send(memory.data(), 2, NcclType::int32, 1, handle, stream), "");
    if (r == 1) nccl.check(nccl.Recv(memory.data(), 2, NcclType::float32, 0, handle, stream), "");
    auto state = NcclStatus::success;
    while (state == NcclStatus::success) {
      nap();
      nccl.check(nccl.CommGetAsyncError(handle, &state), "to ask");
    }
    CHECK(contains(nccl.GetLastError(handle), "ncclSend(2 ncclInt32, to rank 1)"));
    CHECK(contains(nccl.GetLastError(handle), "ncclRecv(2 ncclFloat32, from rank 0)"));
    nccl.check(nccl.CommAbort(handle), "to abort");
    stream.synchronise();
  });
}

/// A call that is wrong in itself is refused at once, and its group with it.
void check_arguments() {
  with_ranks(2, [](Rank& rank) {
    const OnDevice memory(rank.device, rank.stream, std::vector(kBytes, std::byte{1}));
    CHECK(contains(thrown_by([&] { sends(8, 2)(rank, memory.data()); }),
                   "ncclInvalidArgument (invalid argument): ncclSend with rank 2 of 2"));
    CHECK(!thrown_by([&] { reduces(4, DType::int16)(rank, memory.data()); }).empty());
    CHECK(!thrown_by([&] { together({sends(8, 0), sends(8, -1)})(rank, memory.data()); }).empty());
    reduces(kBytes, DType::uint8)(rank, memory.data());
    rank.finish();
    CHECK(memory.bytes() == std::vector(kBytes, std::byte{2}));
  });
  const auto& nccl = Nccl::get();
  const auto id = nccl.unique_id();
  CHECK(contains(thrown_by([&] { Rank(id, 2, 2); }), "no rank 2 of 2"));
  Rank first(id, 2, 0);
  CHECK(contains(thrown_by([&] { Rank(id, 2, 0); }), "two of rank 0"));
  CHECK(contains(thrown_by([&] { Rank(id, 3, 1); }), "one of 3 ranks, others of 2"));
  first.nccl.abort();
}

// Ranks that never come ---------------------------------------------------------------------------

/// The last rank is connected, but calls nothing, or is killed before it does.
void check_dead_rank(int size, bool killed) {
  std::barrier all(size);
  with_ranks(size, [&](Rank& rank) {
    const bool last = rank.nccl.rank() == size - 1;
    const OnDevice memory(rank.device, rank.stream, kBytes);
    const auto before = memory.bytes();
    Event done(rank.device);
    if (killed && last) fake_kill()(size - 1);
    all.arrive_and_wait();
    if (killed || !last) {
      reduces(4)(rank, memory.data());
      rank.settle();
      reduces(4)(rank, memory.data());  // waits for the first
      rank.settle();
      done.record(rank.stream);
      for (int i = 0; i < 20; ++i) nap();
      CHECK(!done.reached() && rank.nccl.error().empty() && rank.nccl.ready());
    }
    rank.nccl.abort();
    rank.stream.synchronise();
    CHECK(memory.bytes() == before);
    CHECK(contains(rank.nccl.error(), "aborted"));
    CHECK(contains(thrown_by([&] { reduces(4)(rank, memory.data()); }), "aborted"));
    rank.nccl.abort();  // again, which does nothing
  });
}

/// A rank that never begins: the others are never ready, take no calls, and can be aborted.
void check_incomplete() {
  const auto id = Nccl::get().unique_id();
  in_parallel(3, [&](int r) {
    Rank rank(id, 4, r);
    const OnDevice memory(rank.device, rank.stream, kBytes);
    for (int i = 0; i < 20; ++i) {
      CHECK(!rank.nccl.ready() && rank.nccl.error().empty());
      nap();
    }
    CHECK(contains(thrown_by([&] { reduces(4)(rank, memory.data()); }), "before"));
    rank.stream.synchronise();
    if (r != 0) rank.nccl.abort();  // and what is not aborted ends all the same
  });
}

/// One ends, although the other does not.
void check_end() {
  std::barrier ended(2);
  const auto id = Nccl::get().unique_id();
  in_parallel(2, [&](int r) {
    std::optional<Rank> rank(std::in_place, id, 2, r);
    rank->settle();
    if (r == 0) rank.reset();
    ended.arrive_and_wait();
  });
}

}  // namespace

int main() {
  if (!Nccl::missing().empty() || !is_fake()) {
    std::printf("nothing to try: this is not the fake NCCL\n");
    return 0;
  }
  alarm(300);  // rather than hang
  check_mismatches();
  check_deadlocks();
  check_types_of_messages();
  check_arguments();
  check_dead_rank(2, false);
  check_dead_rank(4, false);
  check_dead_rank(3, true);
  std::jthread incomplete(check_incomplete);
  check_end();
}
