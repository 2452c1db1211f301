// Asynchronous calls under stress, for the sanitizers. Ranks are threads, several of each rank
// submit and wait, and messages are late. All ranks draw the same calls, and submit those with a
// name in an order of their own, step after step. Then ranks that die, stay away or give up.
//
//   engine_test [calls] [seed]    a million calls take about an hour
#include "engine/engine.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstring>
#include <functional>
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
#include "transport/inproc.h"

namespace {

using namespace ronde;
using Clock = std::chrono::steady_clock;

constexpr double kDeadline = 60;  // seconds, for whatever a rank waits for
constexpr std::size_t kFusionBytes = 3000;

char running[100] = "";  // what a failure reports

void report(int) {
  std::fputs(running, stderr);
  std::signal(SIGABRT, SIG_DFL);
}

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
  std::shared_ptr<Engine> engine;
  std::mt19937 own;  // what it draws alone
};

void pause(std::mt19937& own) {
  if (own() % 6 == 0) std::this_thread::sleep_for(std::chrono::microseconds(own() % 400));
}

/// How many ranks there are, and how they share memory.
struct Shape {
  int size;
  bool shared;
  std::vector<int> machines;
  bool worker = false;  // of each rank
};

Shape draw_shape(std::mt19937& common) {
  const bool worker = common() % 2;
  if (common() % 3 == 0) return {4, true, {0, 0, 1, 1}, worker};
  return {2 + static_cast<int>(common() % 4), common() % 2 == 0, {}, worker};
}

/// Each rank ends on its own, while others may still work.
void run(const Shape& shape, const Faults& faults, double stall_timeout,
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
  std::vector<std::thread> threads;
  for (const int rank : members) {
    threads.emplace_back([&, rank] {
      const auto channel = [&](int number) {
        return std::make_shared<Locked>(world.transport(rank, number));
      };
      const auto control = std::make_shared<Control>(channel(0), Hooks{});
      Rank me{rank, shape.size, members, control, {}, {}, {}};
      me.own.seed(static_cast<unsigned>(faults.seed * 16) + rank);
      me.set = std::make_unique<Communicator>(me.control, channel(1), 0, members, settings);
      if (shape.shared) CHECK(me.set->share_memory(shape.machines));
      me.engine = std::make_shared<Engine>(me.control, kFusionBytes, false, shape.worker);
      program(me);
    });
  }
  for (auto& thread : threads) thread.join();
}

// Calls -------------------------------------------------------------------------------------------

enum class Kind { allreduce, broadcast, barrier };

/// A call as all ranks draw it.
struct Wish {
  Kind kind;
  std::string name;
  Reduction reduction;
  bool in_place;
  std::size_t count;
  int root;
  unsigned salt;  // of the values
  // In one step:
  int odd = -1;   // the rank that describes it differently
  int late = -1;  // the rank that submits it a step later
};

Wish draw(std::mt19937& common, int size, std::string name) {
  constexpr DType kTypes[] = {DType::uint8, DType::int32, DType::float32, DType::float64};
  constexpr std::size_t kCounts[] = {1, 10, 10, 10, 100, 100, 500, 5000};
  Wish wish{.kind = common() % 4 ? Kind::allreduce : Kind(common() % 3),
            .name = std::move(name),
            .reduction = {},
            .in_place = common() % 2 == 0,
            .count = common() % kCounts[common() % 8],
            .root = static_cast<int>(common() % size),
            .salt = static_cast<unsigned>(common() % 1000)};
  wish.reduction.dtype = kTypes[common() % 4];
  wish.reduction.op = common() % 2 ? ReduceOp::sum : ReduceOp(common() % kReduceOpCount);
  if (is_floating(wish.reduction.dtype) && wish.reduction.op == ReduceOp::sum && common() % 2)
    wish.reduction.divisor = size;
  if (wish.kind == Kind::broadcast) wish.in_place = true;
  if (wish.kind != Kind::allreduce) wish.reduction.divisor = 1.0;
  return wish;
}

/// Small whole numbers, so that every sum and product is exact.
double value(const Wish& wish, int rank, std::size_t i) {
  return static_cast<double>(1 + (wish.salt + 7 * i + 3 * rank) % 4) * wish.reduction.divisor;
}

/// Of what these ranks contribute.
double result(const Wish& wish, const std::vector<int>& ranks, std::size_t i) {
  if (wish.kind == Kind::broadcast) return value(wish, wish.root, i);
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

Data encoded(DType type, std::size_t count, FunctionRef<double(std::size_t)> value) {
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

struct Arrays {
  Arrays(const Wish& wish, int rank)
      : input(encoded(wish.reduction.dtype, wish.count + (wish.odd == rank),
                      [&](std::size_t i) { return value(wish, rank, i); })),
        before(wish.in_place ? input : Data(input.size(), std::byte{77})),
        output(before) {}
  Data input;
  const Data before;  // of the output
  Data output;

  Buffer to() { return {output.data(), output.size(), {}}; }
  Piece piece(const Wish& wish) {
    return {wish.in_place ? ConstBuffer(to()) : ConstBuffer(input.data(), input.size()), to()};
  }
  bool right(const Wish& wish, const std::vector<int>& ranks) const {
    return output == encoded(wish.reduction.dtype, wish.count,
                             [&](std::size_t i) { return result(wish, ranks, i); });
  }
};

Call call_of(const Wish& wish, bool odd) {
  constexpr const char* kKinds[] = {"allreduce", "broadcast", "barrier"};
  Call result = call(kKinds[static_cast<int>(wish.kind)]);
  result.name = wish.name;
  result.dtype = wish.reduction.dtype;
  result.shape = {static_cast<std::int64_t>(wish.count + odd)};
  result.op =
      std::string(name_of(wish.reduction.op)) + (wish.reduction.divisor != 1.0 ? ", divided" : "");
  result.root = wish.root;
  return result;
}

struct Issued {
  Wish wish;
  std::shared_ptr<Submission> submission;
  std::shared_ptr<Arrays> arrays;
};

Issued submit(Rank& me, const Wish& wish) {
  const auto arrays = std::make_shared<Arrays>(wish, me.rank);
  Submission::What what{.call = call_of(wish, wish.odd == me.rank), .begin = {}, .fusable = {}};
  if (wish.kind == Kind::allreduce) {
    what.fusable = {arrays->piece(wish), wish.reduction};
  } else if (wish.kind == Kind::broadcast) {
    what.begin = [to = arrays->to(), root = wish.root](Routes& routes, Operation& operation) {
      return routes.choose(Collective::broadcast, {}).broadcast(operation, to, root, {});
    };
  } else {
    what.begin = [](Routes& routes, Operation& operation) {
      return routes.choose(Collective::broadcast, {}).barrier(operation);
    };
  }
  const auto submission = std::make_shared<Submission>(std::move(what), arrays);
  me.engine->submit(*me.set, submission);
  return {wish, submission, arrays};
}

void wait(Engine& engine, const Submission& call, std::mt19937& own) {
  const auto limit = Clock::now() + std::chrono::duration<double>(kDeadline);
  constexpr double kSeconds[] = {0.0, 0.0005, kDeadline};
  while (own() % 4 ? !engine.wait(call, kSeconds[own() % 3]) : !engine.poll(call))
    CHECK(Clock::now() < limit);
}

/// Of a call that has ended: the result is right; or it was refused, and nothing was written.
void check(const Rank& me, const Issued& call) {
  CHECK(call.submission->done());
  bool refused = false;
  try {
    call.submission->result();
  } catch (const MismatchError&) {
    refused = true;
  }
  CHECK(refused == (call.wish.odd >= 0));
  const auto& arrays = *call.arrays;
  const bool any = call.wish.kind != Kind::barrier;
  CHECK(refused || !any ? arrays.output == arrays.before : arrays.right(call.wish, me.there));
  CHECK(call.arrays.use_count() == 1);
}

void block(Rank& me, const Wish& wish) {
  const auto arrays = std::make_shared<Arrays>(wish, me.rank);
  const Piece piece = arrays->piece(wish);
  const Call call = call_of(wish, false);
  try {
    if (wish.kind == Kind::allreduce) allreduce(*me.set, call, {&piece, 1}, wish.reduction);
    if (wish.kind == Kind::broadcast) broadcast(*me.set, call, piece.output, wish.root);
    if (wish.kind == Kind::barrier) barrier(*me.set, call);
  } catch (const Error&) {
    keep_until_exit(arrays);
    throw;
  }
  CHECK(wish.kind == Kind::barrier || arrays->right(wish, me.there));
}

// Programs that succeed ---------------------------------------------------------------------------

/// What all ranks do.
struct Step {
  std::vector<Wish> calls;
  std::vector<Wish> blocking;  // in this order, by the first thread, before it waits
  int threads;
};

/// The calls of every step, with a few changes: one is left out, or odd on a rank; others are
/// added, some of which a rank is late with.
Step draw_step(std::mt19937& common, int size, const std::vector<Wish>& usual, unsigned number) {
  Step step{.calls = {}, .blocking = {}, .threads = 1 + static_cast<int>(common() % 3)};
  const bool varies = common() % 2;
  for (auto wish : usual) {
    if (varies && common() % 10 == 0) continue;
    if (varies && common() % 10 == 0) wish.odd = static_cast<int>(common() % size);
    wish.salt += number;
    step.calls.push_back(wish);
  }
  for (auto more = varies ? common() % 5 : 0; more > 0; --more) {
    auto wish = draw(common, size, "more " + std::to_string(number) + " " + std::to_string(more));
    if (common() % 2) wish.late = static_cast<int>(common() % size);
    step.calls.push_back(wish);
  }
  for (auto more = common() % 3; more > 0; --more)
    step.blocking.push_back(draw(common, size, "blocking"));
  return step;
}

/// In any order, but those without a name in that of the program.
void shuffle(std::vector<Wish>& calls, std::mt19937& own) {
  std::vector<Wish> unnamed;
  std::copy_if(calls.begin(), calls.end(), std::back_inserter(unnamed),
               [](const Wish& wish) { return wish.name.empty(); });
  std::shuffle(calls.begin(), calls.end(), own);
  auto next = unnamed.begin();
  for (auto& wish : calls)
    if (wish.name.empty()) wish = *next++;
}

/// Of a step, what is pending at its end: `awaited` are calls that another rank is late with,
/// `owed` those that this one is.
struct Left {
  std::vector<Issued> awaited;
  std::vector<Wish> owed;
};

void run_step(Rank& me, const Step& step, Left& left) {
  const auto earlier = std::exchange(left.awaited, {});
  auto calls = std::exchange(left.owed, {});
  for (const auto& wish : step.calls) (wish.late == me.rank ? left.owed : calls).push_back(wish);
  shuffle(calls, me.own);
  std::vector<std::vector<Issued>> awaited(step.threads);
  const auto work = [&](int thread, std::mt19937 own) {
    auto blocking = step.blocking.begin();
    const auto last = thread == 0 ? step.blocking.end() : blocking;
    std::vector<Issued> issued;
    for (std::size_t i = 0; i < calls.size(); ++i) {
      if (thread != (calls[i].name.empty() ? 0 : static_cast<int>(i) % step.threads)) continue;
      if (blocking != last && own() % 8 == 0) block(me, *blocking++);
      pause(own);
      issued.push_back(submit(me, calls[i]));
      if (own() % 4 == 0) me.engine->poll(*issued[own() % issued.size()].submission);
    }
    while (blocking != last) block(me, *blocking++);
    std::shuffle(issued.begin(), issued.end(), own);
    for (const auto& call : issued) {
      if (call.wish.late >= 0 && call.wish.late != me.rank) {
        awaited[thread].push_back(call);
      } else {
        wait(*me.engine, *call.submission, own);
        check(me, call);
      }
    }
  };
  std::vector<std::thread> threads;
  for (int thread = 1; thread < step.threads; ++thread)
    threads.emplace_back(work, thread, std::mt19937(me.own()));
  work(0, std::mt19937(me.own()));
  for (auto& thread : threads) thread.join();
  for (const auto& call : earlier) {
    wait(*me.engine, *call.submission, me.own);
    check(me, call);
  }
  for (const auto& some : awaited)
    left.awaited.insert(left.awaited.end(), some.begin(), some.end());
}

/// What all have pending runs, though nobody waits for it; what only this rank has ends.
void end(Rank& me, std::vector<Wish> pending, bool job) {
  std::mt19937 same(1);
  auto lone = draw(same, me.size, "");
  std::vector<Issued> common, own;
  for (auto i = me.own() % 3; i > 0; --i) {
    lone.name = "lone " + std::to_string(me.rank) + " " + std::to_string(i);
    own.push_back(submit(me, lone));
  }
  shuffle(pending, me.own);
  for (const auto& wish : pending) common.push_back(submit(me, wish));
  for (auto i = me.own() % 200; i > 0 && !own.empty(); --i) me.engine->poll(*own[0].submission);
  std::this_thread::sleep_for(std::chrono::milliseconds(me.own() % (job ? 40 : 2)));
  const Call last = call("last");
  Communicator* const sets[] = {me.set.get()};
  if (job) me.engine->leave({sets[0]});
  if (job) me.set->end(last, {});
  std::uint8_t busy = me.engine->busy(*me.set);
  const Buffer flag{reinterpret_cast<std::byte*>(&busy), 1, {}};
  const Piece piece{flag, flag};
  allreduce(*me.set, last, {&piece, 1}, {.dtype = DType::uint8, .op = ReduceOp::max});
  if (busy || !job) me.engine->drain(*me.set, "the test ended");
  for (const auto& call : common) check(me, call);
  CHECK(!me.engine->busy(*me.set));
  barrier(*me.set, last);
  CHECK(me.engine->close(*me.set, "the test ended"));
  for (const auto& call : own) {
    std::string why;
    try {
      call.submission->result();
    } catch (const Error& error) {
      why = error.what();
    }
    CHECK(call.submission->done() && why == "the test ended");
  }
  barrier(*me.set, last);
  CHECK(me.set->close("the test ended") && me.control->close());
}

/// Returns how many calls there were.
std::size_t any_program(unsigned seed) {
  std::mt19937 common(seed);
  const auto shape = draw_shape(common);
  std::vector<Wish> usual;
  for (auto i = 5 + common() % 40; i > 0; --i)
    usual.push_back(draw(common, shape.size, std::to_string(i)));
  for (auto i = common() % 12; i > 0; --i) usual.push_back(draw(common, shape.size, ""));
  std::vector<Step> steps;
  for (unsigned i = 0; i < 6; ++i) steps.push_back(draw_step(common, shape.size, usual, i));
  const bool job = common() % 2;
  const double delays[] = {0, 0.1, 0.3};
  const Faults faults{.seed = seed, .delay = delays[common() % 3]};
  run(shape, faults, kDeadline, [&](Rank& me) {
    Left left;
    for (const auto& step : steps) run_step(me, step, left);
    run_step(me, {.calls = {}, .blocking = {}, .threads = 1}, left);
    end(me, usual, job);
  });
  std::size_t calls = usual.size();
  for (const auto& step : steps) calls += step.calls.size() + step.blocking.size();
  return calls;
}

/// Ranks run out of data one after another, some together. Their neutral values change nothing.
/// Returns how many calls there were.
std::size_t uneven_program(unsigned seed) {
  std::mt19937 common(seed);
  const auto shape = draw_shape(common);
  std::vector<unsigned> batches;
  for (int rank = 0; rank < shape.size; ++rank) batches.push_back(common() % 5);
  const auto last = std::max_element(batches.rbegin(), batches.rend());
  const int last_rank = static_cast<int>(batches.rend() - last) - 1;
  const Join average = common() % 2 ? Join::size : Join::contributing;
  std::vector<Wish> usual, blocking;
  for (auto i = 5 + common() % 20; i > 0; --i)
    usual.push_back(draw(common, shape.size, i % 4 ? std::to_string(i) : ""));
  for (auto i = common() % 4; i > 0; --i) blocking.push_back(draw(common, shape.size, ""));
  for (auto* wishes : {&usual, &blocking}) {
    for (auto& wish : *wishes) {
      wish.root = last_rank;
      // An average by another number would not be exact.
      wish.reduction.divisor = 1.0;
    }
  }
  const Faults faults{.seed = seed, .delay = common() % 2 ? 0.1 : 0};
  run(shape, faults, kDeadline, [&](Rank& me) {
    const auto everybody = me.there;
    for (int epoch = 0; epoch < 2; ++epoch) {
      for (unsigned batch = 0; batch < batches[me.rank]; ++batch) {
        std::erase_if(me.there, [&](int rank) { return batch >= batches[rank]; });
        Left left;
        run_step(me, {usual, blocking, 1}, left);
      }
      CHECK(me.engine->join(*me.set, average) == last_rank);
      me.there = everybody;
    }
    end(me, usual, false);
  });
  return *last * (usual.size() + blocking.size());
}

// A name is taken until its call has ended, also while that runs. Whoever tried goes on.
void a_name_is_taken(bool shared) {
  run({2, shared, {}}, {.seed = 1, .delay = 0.1}, kDeadline, [](Rank& me) {
    std::mt19937 common(1);
    auto taken = draw(common, me.size, "taken");
    taken.count = 6000;
    const auto other = draw(common, me.size, "other");
    for (int repeats = 0; repeats < 10; ++repeats) {
      const auto first = submit(me, taken);
      while (!me.engine->poll(*first.submission)) {
        bool refused = false;
        try {
          submit(me, taken);
        } catch (const ArgumentError&) {
          refused = true;
        }
        CHECK(refused);
        std::this_thread::sleep_for(std::chrono::microseconds(100));
      }
      check(me, first);
      const auto second = submit(me, other);
      wait(*me.engine, *second.submission, me.own);
      check(me, second);
    }
    end(me, {}, false);
  });
}

// Programs that fail ------------------------------------------------------------------------------

enum class Fault { dies, stays_away, gives_up };

/// In one step or another a rank fails. Each rank ends as soon as it finds out.
void a_rank_that_fails(unsigned seed, Fault fault) {
  std::mt19937 common(seed);
  const auto shape = draw_shape(common);
  Faults faults{.seed = seed, .delay = 0.1};
  const int failing = static_cast<int>(common() % shape.size);
  if (fault == Fault::dies) {
    faults.dies = failing;
    faults.dies_after = static_cast<int>(40 + common() % (shape.shared ? 100 : 1000));
  }
  std::vector<Wish> usual;
  for (int i = 0; i < 20; ++i)
    usual.push_back(draw(common, shape.size, i % 4 ? std::to_string(i) : ""));
  const int step_of_failure = static_cast<int>(common() % 5);
  run(shape, faults, fault == Fault::stays_away ? 1.0 : kDeadline / 2, [&](Rank& me) {
    std::atomic<bool> failed = false;
    for (int step = 0; !failed; ++step) {
      const bool fails = me.rank == failing && step == step_of_failure;
      if (fails && fault == Fault::stays_away) return;
      auto calls = usual;
      calls.back().name = "step " + std::to_string(step);  // so the ranks negotiate
      shuffle(calls, me.own);
      std::vector<Issued> issued;
      const auto gives_up = 1 + me.own() % calls.size();
      try {
        for (const auto& wish : calls) {
          pause(me.own);
          issued.push_back(submit(me, wish));
          me.engine->poll(*issued[0].submission);
          if (fails && fault == Fault::gives_up && issued.size() == gives_up)
            me.control->announce_failure({0, 0, "it has given up"}, false);
        }
        block(me, usual[0]);
      } catch (const Error&) {
        failed = true;
      }
      // The calls alone own what messages may still touch.
      const auto work = [&](std::size_t thread, std::mt19937 own) {
        for (std::size_t i = thread; i < issued.size(); i += 2) {
          wait(*me.engine, *issued[i].submission, own);
          try {
            issued[i].submission->result();
            CHECK(issued[i].wish.kind == Kind::barrier ||
                  issued[i].arrays->right(issued[i].wish, me.there));
          } catch (const Error&) {
            failed = true;
          }
          issued[i].arrays.reset();
        }
      };
      std::thread other(work, 1, std::mt19937(me.own()));
      work(0, std::mt19937(me.own()));
      other.join();
    }
    CHECK(me.control->failed());
    (void)me.engine->close(*me.set, "the test ended");
  });
}

}  // namespace

int main(int count, char** arguments) {
  const std::size_t wanted = count > 1 ? std::stoul(arguments[1]) : 3000;
  unsigned seed = count > 2 ? static_cast<unsigned>(std::stoul(arguments[2])) : 1;
  std::signal(SIGABRT, report);
  for (const bool shared : {false, true}) a_name_is_taken(shared);
  std::size_t calls = 0;
  for (unsigned round = 0; calls < wanted; ++round, ++seed) {
    std::snprintf(running, sizeof running, "it was engine_test 1 %u\n", seed);
    calls += any_program(seed);
    calls += uneven_program(seed);
    if (round % 10 == 0)
      for (const auto fault : {Fault::dies, Fault::stays_away, Fault::gives_up})
        a_rank_that_fails(seed, fault);
    if (round % 100 == 99) std::printf("%zu calls, seed %u\n", calls, seed);
  }
  std::puts("engine: ok");
}
