// Ranks that are threads, and calls that they draw at random, with what must come of each.
#pragma once

#include <algorithm>
#include <barrier>
#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "check.h"
#include "collectives.h"
#include "core/error.h"
#include "core/function_ref.h"
#include "core/keep.h"
#include "engine/engine.h"
#include "transport/group.h"
#include "transport/inproc.h"

namespace ronde::test {

using Clock = std::chrono::steady_clock;

constexpr double kDeadline = 60;  // seconds, for whatever a rank waits for
constexpr std::size_t kFusionBytes = 3000;

// Ranks -------------------------------------------------------------------------------------------

/// For several threads of one rank, which take turns as at the mutex of MPI.
class Locked final : public Transport {
 public:
  explicit Locked(std::shared_ptr<Transport> transport) : transport_(std::move(transport)) {}
  int rank() const override { return transport_->rank(); }
  int size() const override { return transport_->size(); }
  Request send(int peer, int tag, ConstBuffer message) override {
    const std::lock_guard lock(mutex_);
    return transport_->send(peer, tag, message);
  }
  Request recv(int peer, int tag, Buffer capacity) override {
    const std::lock_guard lock(mutex_);
    return transport_->recv(peer, tag, capacity);
  }
  std::optional<std::size_t> test(Request request) override {
    const std::lock_guard lock(mutex_);
    return transport_->test(request);
  }
  std::int64_t bytes_sent() const override {
    const std::lock_guard lock(mutex_);
    return transport_->bytes_sent();
  }

 private:
  mutable std::mutex mutex_;
  const std::shared_ptr<Transport> transport_;
};

struct Rank {
  int rank, size;
  std::vector<int> there;  // the ranks that have not joined
  std::shared_ptr<Control> control;
  std::unique_ptr<Communicator> set;
  std::unique_ptr<Communicator> part;  // all ranks but the first, if there are three or more
  std::shared_ptr<Engine> engine;
  std::mt19937 own;  // what it draws alone

  std::vector<Communicator*> sets() const {
    std::vector<Communicator*> all{set.get()};
    if (part) all.push_back(part.get());
    return all;
  }
};

inline void pause(std::mt19937& own) {
  if (own() % 6 == 0) std::this_thread::sleep_for(std::chrono::microseconds(own() % 400));
}

/// How many ranks there are, and how they share memory.
struct Shape {
  int size;
  bool shared;
  std::vector<int> machines;
  bool worker = false;  // of each rank

  bool has_part() const { return size > 2 && machines.empty(); }
};

inline Shape draw_shape(std::mt19937& common) {
  const bool worker = common() % 2;
  if (common() % 3 == 0) return {4, true, {0, 0, 1, 1}, worker};
  return {2 + static_cast<int>(common() % 4), common() % 2 == 0, {}, worker};
}

/// Each rank ends on its own, while others may still work.
inline void run(const Shape& shape, const Faults& faults, double stall_timeout,
                const std::function<void(Rank&)>& program) {
  InprocWorld world(shape.size, faults);
  Settings settings;
  settings.spin = false;
  settings.segment_bytes = 512;
  settings.window = 8;
  settings.stall_warning = 0;
  settings.stall_timeout = stall_timeout;
  std::vector<int> members;
  for (int rank = 0; rank < shape.size; ++rank) members.push_back(rank);
  const std::vector<int> others(members.begin() + 1, members.end());
  std::barrier all_are_there(shape.size);
  std::vector<std::thread> threads;
  for (const int rank : members) {
    threads.emplace_back([&, rank] {
      const auto channel = [&](int number) -> std::shared_ptr<Transport> {
        return std::make_shared<Locked>(world.transport(rank, number));
      };
      Rank me{.rank = rank,
              .size = shape.size,
              .there = members,
              .control = std::make_shared<Control>(channel(0), Hooks{}),
              .set = {},
              .part = {},
              .engine = {},
              .own = {}};
      me.own.seed(static_cast<unsigned>(faults.seed * 16) + rank);
      me.set = std::make_unique<Communicator>(me.control, channel(1), 0, members, settings);
      if (shape.has_part() && rank > 0) {
        // Locked, its peers are those of the part.
        const auto own = std::make_shared<Locked>(std::make_shared<Group>(channel(2), others));
        me.part = std::make_unique<Communicator>(me.control, own, 1, others, settings);
      }
      if (shape.shared)
        for (auto* set : me.sets()) CHECK(set->share_memory(shape.machines));
      me.engine = std::make_shared<Engine>(me.control, kFusionBytes, false, shape.worker);
      all_are_there.arrive_and_wait();  // no rank fails while others set up
      program(me);
    });
  }
  for (auto& thread : threads) thread.join();
}

// Calls -------------------------------------------------------------------------------------------

enum class Kind { allreduce, reduce, reduce_scatter, broadcast, allgather, alltoall, barrier };
constexpr const char* kKinds[] = {"allreduce", "reduce",   "reduce_scatter", "broadcast",
                                  "allgather", "alltoall", "barrier"};

/// A call as all ranks draw it.
struct Wish {
  Kind kind;
  std::string name;
  Reduction reduction;
  bool in_place;
  bool of_part;  // made by the ranks of the part alone
  std::size_t count;
  int root;
  unsigned salt;  // of the values
  // In one step:
  int odd = -1;   // the rank that describes it differently
  int late = -1;  // the rank that submits it a step later

  bool reduces() const { return kind <= Kind::reduce_scatter; }
};

inline Wish draw(std::mt19937& common, const Shape& shape, std::string name) {
  constexpr DType kTypes[] = {DType::uint8, DType::int32, DType::float32, DType::float64};
  constexpr std::size_t kCounts[] = {1, 10, 10, 10, 100, 100, 500, 5000};
  const bool of_part = shape.has_part() && common() % 4 == 0;
  const int size = shape.size - of_part;
  Wish wish{.kind = common() % 3 ? Kind::allreduce : Kind(common() % 7),
            .name = std::move(name),
            .reduction = {},
            .in_place = common() % 2 == 0,
            .of_part = of_part,
            .count = common() % kCounts[common() % 8],
            .root = static_cast<int>(common() % size),
            .salt = static_cast<unsigned>(common() % 1000)};
  wish.reduction.dtype = kTypes[common() % 4];
  wish.reduction.op = common() % 2 ? ReduceOp::sum : ReduceOp(common() % kReduceOpCount);
  if (wish.reduces() && is_floating(wish.reduction.dtype) && wish.reduction.op == ReduceOp::sum &&
      common() % 2)
    wish.reduction.divisor = size;
  return wish;
}

/// The ranks of a call: which of them this one is, their number, and which have not joined.
struct Place {
  int rank, size;
  std::vector<int> there;
};

inline Place place_of(const Rank& me, const Wish& wish) {
  const int first = wish.of_part;
  Place place{me.rank - first, me.size - first, {}};
  for (const int rank : me.there)
    if (rank >= first) place.there.push_back(rank - first);
  return place;
}

/// Small whole numbers, so that every sum and product is exact.
inline double value(const Wish& wish, int rank, std::size_t i) {
  return static_cast<double>(1 + (wish.salt + 7 * i + 3 * rank) % 4) * wish.reduction.divisor;
}

/// Of what these ranks contribute.
inline double reduced(const Wish& wish, const std::vector<int>& ranks, std::size_t i) {
  double all = value(wish, ranks[0], i);
  for (const int rank : std::span(ranks).subspan(1)) {
    const double next = value(wish, rank, i);
    const auto op = wish.reduction.op;
    if (op == ReduceOp::sum) all += next;
    if (op == ReduceOp::product) all *= next;
    if (op == ReduceOp::min) all = std::min(all, next);
    if (op == ReduceOp::max) all = std::max(all, next);
  }
  return all / wish.reduction.divisor;
}

using Data = std::vector<std::byte>;

inline Data encoded(DType type, std::size_t count, FunctionRef<double(std::size_t)> value) {
  Data data(count * size_of(type));
  for (std::size_t i = 0; i < count; ++i) {
    const auto put = [&](auto number) {
      std::memcpy(&data[i * sizeof number], &number, sizeof number);
    };
    const double number = value(i);
    if (type == DType::uint8) put(static_cast<std::uint8_t>(static_cast<int>(number)));
    if (type == DType::int32) put(static_cast<std::int32_t>(number));
    if (type == DType::float32) put(static_cast<float>(number));
    if (type == DType::float64) put(number);
  }
  return data;
}

/// Elements that a rank contributes, where ranks have different amounts.
inline std::size_t rows_of(const Wish& wish, int rank) {
  return wish.kind == Kind::allgather ? (wish.count + rank) % 300 : wish.count;
}
/// Elements from one rank to another.
inline std::size_t rows_between(const Wish& wish, int from, int to) {
  return (wish.count + 3 * from + 5 * to) % 50;
}

inline std::vector<std::size_t> rows_to(const Wish& wish, const Place& place) {
  std::vector<std::size_t> rows;
  for (int to = 0; to < place.size; ++to) rows.push_back(rows_between(wish, place.rank, to));
  return rows;
}

inline std::size_t sum(const std::vector<std::size_t>& counts) {
  std::size_t all = 0;
  for (const auto count : counts) all += count;
  return all;
}

/// What a rank puts into a call and gets out of it.
struct Arrays {
  Arrays(const Wish& wish, const Place& where, bool odd)
      : place(where),
        type(wish.reduction.dtype),
        rows(rows_to(wish, where)),
        chunks(Chunks::even(wish.count, where.size)),
        input(encoded(type,
                      (wish.kind == Kind::alltoall ? sum(rows) : rows_of(wish, where.rank)) + odd,
                      [&](std::size_t i) { return value(wish, where.rank, i); })),
        before(is_in_place(wish) ? input : Data(room(wish), std::byte{77})),
        output(before) {}

  static bool is_in_place(const Wish& wish) {
    return wish.kind == Kind::broadcast || (wish.kind == Kind::allreduce && wish.in_place);
  }
  std::size_t room(const Wish& wish) const {
    if (wish.kind == Kind::reduce_scatter) return chunks.count(place.rank) * size_of(type);
    return input.size();
  }

  Buffer to() { return {output.data(), output.size(), {}}; }
  ConstBuffer from() const { return {input.data(), input.size(), {}}; }
  Piece piece(const Wish& wish) { return {is_in_place(wish) ? ConstBuffer(to()) : from(), to()}; }

  /// What must be there after the call, in the output or in what was gathered.
  Data result(const Wish& wish) const {
    const auto reduction = [&](std::size_t i) { return reduced(wish, place.there, i); };
    Data all;
    const auto append = [&](int rank, std::size_t from, std::size_t count) {
      const auto more =
          encoded(type, count, [&](std::size_t i) { return value(wish, rank, from + i); });
      all.insert(all.end(), more.begin(), more.end());
    };
    switch (wish.kind) {
      case Kind::allreduce:
        return encoded(type, wish.count, reduction);
      case Kind::reduce:
        return place.rank == wish.root ? encoded(type, wish.count, reduction) : before;
      case Kind::reduce_scatter: {
        const auto mine = chunks[place.rank];
        return encoded(type, mine.count, [&](std::size_t i) { return reduction(mine.offset + i); });
      }
      case Kind::broadcast:
        append(wish.root, 0, wish.count);
        return all;
      case Kind::allgather:
        for (const int rank : place.there) append(rank, 0, rows_of(wish, rank));
        return all;
      case Kind::alltoall:
        for (const int rank : place.there) {
          std::size_t skipped = 0;
          for (int to = 0; to < place.rank; ++to) skipped += rows_between(wish, rank, to);
          append(rank, skipped, rows_between(wish, rank, place.rank));
        }
        return all;
      case Kind::barrier:
        break;
    }
    return before;
  }

  bool right(const Wish& wish) const {
    if (wish.kind != Kind::allgather && wish.kind != Kind::alltoall) return output == result(wish);
    const auto* data = gathered.data.data();
    return output == before && result(wish) == Data(data, data + gathered.data.size());
  }

  const Place place;
  const DType type;
  const std::vector<std::size_t> rows;  // to each rank
  const Chunks chunks;
  Data input;
  const Data before;  // of the output
  Data output;
  Gathered gathered;
};

inline Call call_of(const Wish& wish, bool odd) {
  Call result = call(kKinds[static_cast<int>(wish.kind)]);
  result.name = wish.name;
  if (wish.kind == Kind::barrier) {
    if (odd) result.detail = "odd";
    return result;
  }
  result.dtype = wish.reduction.dtype;
  result.shape = {static_cast<std::int64_t>(wish.count + odd)};
  if (wish.reduces())
    result.op = std::string(name_of(wish.reduction.op)) +
                (wish.reduction.divisor != 1.0 ? ", divided" : "");
  if (wish.kind == Kind::reduce || wish.kind == Kind::broadcast) result.root = wish.root;
  return result;
}

inline Collective collective_of(const Wish& wish) {
  constexpr Collective kAll[] = {Collective::allreduce,      Collective::reduce,
                                 Collective::reduce_scatter, Collective::broadcast,
                                 Collective::allgather,      Collective::alltoall,
                                 Collective::broadcast};
  return kAll[static_cast<int>(wish.kind)];
}

/// The task of a call.
inline Task<> begin(const std::shared_ptr<Arrays>& arrays, const Wish& wish, Route& route,
                    Operation& operation) {
  const std::size_t item = size_of(arrays->type);
  switch (wish.kind) {
    case Kind::allreduce: {
      const auto pieces = operation.zeros<Piece>(1);
      pieces[0] = arrays->piece(wish);
      return route.allreduce(operation, pieces, wish.reduction, {});
    }
    case Kind::reduce:
      return route.reduce(operation, {arrays->from(), arrays->to()}, wish.reduction, wish.root, {});
    case Kind::reduce_scatter:
      return route.reduce_scatter(operation, arrays->from(), arrays->to(), arrays->chunks,
                                  wish.reduction, {});
    case Kind::broadcast:
      return route.broadcast(operation, arrays->to(), wish.root, {});
    case Kind::allgather: {
      const Contribution mine{arrays->from(), rows_of(wish, arrays->place.rank), item};
      return keep_result(arrays->gathered, route.allgather(operation, mine, {}));
    }
    case Kind::alltoall: {
      const Rows all{arrays->from(), arrays->rows, item};
      return keep_result(arrays->gathered, route.alltoall(operation, all, {}));
    }
    case Kind::barrier:
      break;
  }
  return route.barrier(operation);
}

struct Issued {
  Wish wish;
  std::shared_ptr<Submission> submission;
  std::shared_ptr<Arrays> arrays;
};

inline Issued submit(Rank& me, const Wish& wish) {
  const bool odd = wish.odd == me.rank;
  const auto arrays = std::make_shared<Arrays>(wish, place_of(me, wish), odd);
  auto& set = wish.of_part ? *me.part : *me.set;
  Submission::What what{.call = call_of(wish, odd),
                        .begin = {},
                        .fusable = {},
                        .scheduled = set.names_algorithm(collective_of(wish), {})};
  what.begin = [arrays, wish](Routes& routes, Operation& operation) {
    return begin(arrays, wish, routes.choose(collective_of(wish), {}), operation);
  };
  if (wish.kind == Kind::allreduce) what.fusable = {arrays->piece(wish), wish.reduction};
  const auto submission = std::make_shared<Submission>(std::move(what), arrays);
  me.engine->submit(set, submission);
  return {wish, submission, arrays};
}

inline void wait(Engine& engine, const Submission& call, std::mt19937& own) {
  const auto limit = Clock::now() + std::chrono::duration<double>(kDeadline);
  constexpr double kSeconds[] = {0.0, 0.0005, kDeadline};
  while (own() % 4 ? !engine.wait(call, kSeconds[own() % 3]) : !engine.poll(call))
    CHECK(Clock::now() < limit);
}

/// Of a call that has ended: the result is right; or it was refused, and nothing was written.
inline void check(const Issued& call) {
  CHECK(call.submission->done());
  bool refused = false;
  try {
    call.submission->result();
  } catch (const MismatchError&) {
    refused = true;
  }
  CHECK(refused == (call.wish.odd >= 0));
  const auto& arrays = *call.arrays;
  CHECK(refused ? arrays.output == arrays.before : arrays.right(call.wish));
  CHECK(call.arrays.use_count() == 1);
}

/// A blocking call.
inline void block(Rank& me, const Wish& wish) {
  const auto arrays = std::make_shared<Arrays>(wish, place_of(me, wish), false);
  const Call call = call_of(wish, false);
  auto& set = wish.of_part ? *me.part : *me.set;
  try {
    set.run(call, collective_of(wish), {}, [&](Route& route, Operation& operation) {
      return begin(arrays, wish, route, operation);
    });
  } catch (const Error&) {
    keep_until_exit(arrays);
    throw;
  }
  CHECK(arrays->right(wish));
}

}  // namespace ronde::test
