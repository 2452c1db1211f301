// Allgather, gather and alltoall of arrays on GPUs over NCCL: every byte is where it belongs,
// whatever the numbers of rows, and whatever the caller's streams do before and after. Ranks are
// threads, with a GPU each, or sharing one where NCCL lets them.
#include <unistd.h>

#include <cstdio>
#include <optional>

#include "core/error.h"
#include "engine/engine.h"
#include "nccl_job.h"

namespace {

using namespace ronde;
using namespace ronde::cuda;
using namespace ronde::cuda::testing;

using Data = std::vector<std::byte>;
using Counts = std::vector<std::size_t>;

std::byte byte_of(int from, int to, std::size_t i) {
  return static_cast<std::byte>(31 * from + 7 * to + static_cast<int>(i % 251));
}

/// What one rank has for another, or for all of them.
constexpr int kAll = -1;
void append(Data& data, int from, int to, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; ++i) data.push_back(byte_of(from, to, i));
}

/// The numbers of rows of a rank for another: even, uneven, some of them none, only one of them
/// any, none at all.
constexpr int kShapes = 5;
std::size_t rows_of(int shape, int from, int to) {
  switch (shape) {
    case 0:
      return 12;
    case 1:
      return static_cast<std::size_t>(1 + (5 * from + 3 * to + 3) % 17);
    case 2:
      return static_cast<std::size_t>((from + 2 * to + 4) % 3 * 9);
    case 3:
      return from == 1 ? 1000 : 0;
    default:
      return 0;
  }
}

/// One call and its result.
struct Move {
  Collective collective;
  int shape;
  std::size_t row_bytes;
  int root = 0;

  const char* kind() const {
    if (collective == Collective::allgather) return "allgather";
    return collective == Collective::gather ? "gather" : "alltoall";
  }
  bool is_alltoall() const { return collective == Collective::alltoall; }
  bool receives(int rank) const { return collective != Collective::gather || rank == root; }

  Counts sent(int rank, int size) const {
    if (!is_alltoall()) return {rows_of(shape, rank, kAll)};
    Counts counts;
    for (int to = 0; to < size; ++to) counts.push_back(rows_of(shape, rank, to));
    return counts;
  }
  Data input(int rank, int size) const {
    Data data;
    const auto counts = sent(rank, size);
    for (std::size_t to = 0; to < counts.size(); ++to)
      append(data, rank, is_alltoall() ? static_cast<int>(to) : kAll, counts[to] * row_bytes);
    return data;
  }
  Counts expected_rows(int rank, int size) const {
    Counts counts;
    for (int from = 0; from < size; ++from)
      counts.push_back(rows_of(shape, from, is_alltoall() ? rank : kAll));
    return counts;
  }
  Data expected(int rank, int size) const {
    Data data;
    if (!receives(rank)) return data;
    const auto counts = expected_rows(rank, size);
    for (int from = 0; from < size; ++from)
      append(data, from, is_alltoall() ? rank : kAll,
             counts[static_cast<std::size_t>(from)] * row_bytes);
    return data;
  }

  Task<Gathered> begin(Route& route, Operation& operation, ConstBuffer mine,
                       const Counts& counts) const {
    if (is_alltoall()) return route.alltoall(operation, {mine, counts, row_bytes}, {});
    const Contribution rows{mine, counts[0], row_bytes};
    if (collective == Collective::gather) return route.gather(operation, rows, root, {});
    return route.allgather(operation, rows, {});
  }
};

/// All calls of a job, the same on its ranks.
std::vector<Move> moves(int size) {
  std::vector<Move> all;
  for (int shape = 0; shape < kShapes; ++shape) {
    for (const std::size_t row_bytes : {0, 1, 3, 400}) {
      all.push_back({Collective::allgather, shape, row_bytes});
      all.push_back({Collective::alltoall, shape, row_bytes});
      all.push_back({Collective::gather, shape, row_bytes, shape % size});
    }
  }
  return all;
}

Task<> keep(std::shared_ptr<Gathered> result, Task<Gathered> task) {
  Gathered made = co_await std::move(task);
  *result = std::move(made);
}

/// The array of a rank, which its stream may still be writing.
std::shared_ptr<Array> array_of(const Member& me, Data data) {
  struct Written {
    Written(cuda::Device& device, Data written)
        : data(std::move(written)), array(device, zeros()) {}
    Data zeros() const { return Data(data.size()); }
    const Data data;
    Array array;
  };
  const auto made = std::make_shared<Written>(me.device, std::move(data));
  auto& array = made->array;
  if (array.size())
    me.device.copy(array.stream(), array.buffer().data, made->data.data(), array.size());
  return {made, &array};
}

/// On the host, by way of a stream of the caller's.
Data taken(const Member& me, Gathered& gathered, std::size_t bytes) {
  if (!gathered.there) return Data(gathered.data.data(), gathered.data.data() + bytes);
  const Stream stream(me.device);
  const OnDevice to(me.device, stream, bytes);
  gathered.there->move_to(to.data(), stream);
  return to.bytes();
}

Call call_of(const Member& me, const Move& move, ConstBuffer mine) {
  Call call = named(move.kind());
  call.root = move.collective == Collective::gather ? move.root : -1;
  const Piece whole{mine, {}};
  me.set->describe_gpus(call, {&whole, 1});
  return call;
}

/// The array gets other values as soon as the call has ended.
void check_result(const Member& me, const Move& move, Array& array, Gathered& gathered) {
  const auto expected = move.expected(me.rank, me.size);
  const auto bytes = array.size();
  array.overwrite();
  CHECK(gathered.rows == move.expected_rows(me.rank, me.size));
  CHECK((gathered.there != nullptr) == !expected.empty());
  CHECK(taken(me, gathered, expected.size()) == expected);
  CHECK(array.bytes() == Data(bytes, std::byte{0xcc}));
}

void check_blocking(Member& me) {
  for (const auto& move : moves(me.size)) {
    const auto array = array_of(me, move.input(me.rank, me.size));
    const auto counts = move.sent(me.rank, me.size);
    const auto mine = array->buffer();
    const auto gathered = std::make_shared<Gathered>();
    me.set->run(call_of(me, move, mine), move.collective, {}, [&](Route& route, Operation& op) {
      return keep(gathered, move.begin(route, op, mine, counts));
    });
    check_result(me, move, *array, *gathered);
  }
}

/// Many at once, on several lanes, which end in any order.
void check_lanes(Member& me) {
  const auto engine = std::make_shared<Engine>(me.control, 1000, false, true);
  struct Pending {
    Move move;
    std::shared_ptr<Array> array;
    Counts counts;
    std::shared_ptr<Gathered> gathered;
    std::shared_ptr<Submission> call;
  };
  std::vector<Pending> pending;
  for (const auto& move : moves(me.size)) {
    auto& each = pending.emplace_back(move, array_of(me, move.input(me.rank, me.size)),
                                      move.sent(me.rank, me.size), std::make_shared<Gathered>());
    const auto mine = each.array->buffer();
    const auto begin = [move, mine, counts = each.counts, gathered = each.gathered](
                           Routes& routes, Operation& operation) {
      auto& route = routes.choose(move.collective, {});
      return keep(gathered, move.begin(route, operation, mine, counts));
    };
    Submission::What what{.call = call_of(me, move, mine), .begin = begin, .fusable = {}};
    what.call.name = std::to_string(pending.size());
    each.call = std::make_shared<Submission>(std::move(what), each.array);
    engine->submit(*me.set, each.call);
    if (pending.size() % 10 != 0) continue;
    for (auto& one : pending) {
      CHECK(engine->wait(*one.call, 60.0));
      one.call->result();
      check_result(me, one.move, *one.array, *one.gathered);
    }
    pending.clear();
  }
  for (auto& one : pending) {
    CHECK(engine->wait(*one.call, 60.0));
    check_result(me, one.move, *one.array, *one.gathered);
  }
  CHECK(engine->close(*me.set, "the test ended"));
}

/// One rank has its rows on the host, or none of them there: all say so, and work goes on.
void check_mismatch(Member& me) {
  for (const int shape : {1, 4}) {
    for (const auto collective :
         {Collective::allgather, Collective::gather, Collective::alltoall}) {
      const Move move{collective, shape, 8};
      auto data = move.input(me.rank, me.size);
      const auto array = array_of(me, data);
      const auto counts = move.sent(me.rank, me.size);
      const ConstBuffer mine =
          me.rank == 1 ? ConstBuffer(data.data(), data.size()) : ConstBuffer(array->buffer());
      Gathered gathered;
      const auto error = thrown_by([&] {
        me.set->run(call_of(me, move, mine), collective, {}, [&](Route& route, Operation& op) {
          return keep(std::make_shared<Gathered>(), move.begin(route, op, mine, counts));
        });
      });
      CHECK(contains(error, "on GPUs"));
      CHECK(array->bytes() == data);
    }
  }
  check_blocking(me);
}

/// Ranks of one GPU, which NCCL may refuse: then rows are staged.
void check_one_gpu() {
  Job{.one_gpu = true}.run(3, [](Member& me) {
    for (const auto& move : moves(me.size)) {
      const auto data = move.input(me.rank, me.size);
      const auto array = array_of(me, data);
      const auto counts = move.sent(me.rank, me.size);
      const auto mine = array->buffer();
      const auto gathered = std::make_shared<Gathered>();
      me.set->run(call_of(me, move, mine), move.collective, {}, [&](Route& route, Operation& op) {
        return keep(gathered, move.begin(route, op, mine, counts));
      });
      const auto expected = move.expected(me.rank, me.size);
      CHECK(gathered->rows == move.expected_rows(me.rank, me.size));
      CHECK(!gathered->there);
      CHECK(taken(me, *gathered, expected.size()) == expected);
      CHECK(array->bytes() == data);
    }
  });
}

/// A rank that has joined has no rows. The others' are staged.
void check_joined() {
  Job{}.run(3, [](Member& me) {
    const Move move{Collective::allgather, 1, 5};
    if (me.rank != 2) {
      const auto array = array_of(me, move.input(me.rank, me.size));
      const auto mine = array->buffer();
      const auto gathered = std::make_shared<Gathered>();
      const auto counts = move.sent(me.rank, me.size);
      me.set->run(call_of(me, move, mine), move.collective, {}, [&](Route& route, Operation& op) {
        return keep(gathered, move.begin(route, op, mine, counts));
      });
      auto rows = move.expected_rows(me.rank, me.size);
      rows[2] = 0;
      CHECK(gathered->rows == rows && !gathered->there);
      CHECK(gathered->data.size() == (rows[0] + rows[1]) * 5);
    }
    me.set->join(Join::size, [] {}, [] { return std::uint64_t{0}; });
  });
}

/// A rank agrees to a call and goes, before its GPU comes to it. Those of the others wait for its
/// rows until their next call finds out; whatever they have received by then may be let go.
void check_dead_rank() {
  auto settings = quick();
  settings.stall_timeout = 0.7;
  std::barrier all(3);
  Job{.settings = settings}.run(3, [&](Member& me) {
    const Move move{Collective::alltoall, 1, 100};
    const auto array = array_of(me, move.input(me.rank, me.size));
    const auto counts = move.sent(me.rank, me.size);
    const auto call = [&](Gathered* to) {
      const auto mine = array->buffer();
      const auto gathered = std::make_shared<Gathered>();
      me.set->run(call_of(me, move, mine), move.collective, {}, [&](Route& route, Operation& op) {
        return keep(gathered, move.begin(route, op, mine, counts));
      });
      if (to) *to = *gathered;
    };
    call(nullptr);
    all.arrive_and_wait();
    if (me.rank == 2) fake_kill()(me.rank);
    all.arrive_and_wait();
    Gathered gathered;
    call(&gathered);
    all.arrive_and_wait();
    if (me.rank == 2) {
      me.set.reset();
      return;
    }
    CHECK(!thrown_by([&] { call(nullptr); }).empty());
    taken(me, gathered, move.expected(me.rank, me.size).size());  // which waits for nothing
    CHECK(array->bytes() == move.input(me.rank, me.size));
  });
}

}  // namespace

int main() {
  setenv("FAKE_CUDA_DEVICES", "8", 1);
  if (!Nccl::missing().empty() || !Driver::missing().empty()) {
    std::printf("nothing to try: %s %s\n", Nccl::missing().c_str(), Driver::missing().c_str());
    return 0;
  }
  alarm(300);  // rather than hang
  const bool fake = is_fake();
  if (fake) {
    check_one_gpu();
    check_joined();
    check_dead_rank();
  }
  setenv("NCCL_MULTI_RANK_GPU_ENABLE", "1", 0);
  for (const int size : {1, 2, 4, 8}) {
    if (size > Driver::get().devices() && !Nccl::get().shares_gpus()) break;
    Job{}.run(size, check_blocking);
    Job{}.run(size, check_lanes);
  }
  Job{}.run(3, check_mismatch);
}
