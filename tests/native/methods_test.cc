// Compressed groups of ranks that are threads, for the sanitizers: every method under random
// delays, with and without shared memory; methods that several threads of a rank use; and tasks
// that need a thread of the caller.
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "collectives.h"
#include "compress/table.h"
#include "compress/top_k.h"
#include "methods/compressing.h"
#include "methods/dgc.h"
#include "methods/error_feedback.h"
#include "methods/group.h"
#include "methods/integer_sums.h"
#include "methods/power_sgd.h"
#include "transport/inproc.h"

namespace {

using namespace ronde;

struct Rank {
  std::vector<std::shared_ptr<Control>> controls;
  std::vector<std::unique_ptr<Communicator>> sets;
};

std::vector<int> first(int size) {
  std::vector<int> ranks;
  for (int rank = 0; rank < size; ++rank) ranks.push_back(rank);
  return ranks;
}

/// Each rank with so many sets, and for each of these a thread.
void run(int size, int sets, const std::vector<int>& machines, bool shared,
         const std::function<void(Communicator&, int set)>& program) {
  Settings settings;
  settings.spin = false;
  settings.segment_bytes = 512;
  std::vector<std::unique_ptr<InprocWorld>> worlds;
  for (int i = 0; i < sets; ++i)
    worlds.push_back(std::make_unique<InprocWorld>(size, Faults{.seed = 7, .delay = 0.3}));
  std::vector<Rank> ranks(size);
  for (int rank = 0; rank < size; ++rank) {
    auto& me = ranks[rank];
    for (int i = 0; i < sets; ++i) {
      me.controls.push_back(std::make_shared<Control>(worlds[i]->transport(rank, 0), Hooks{}));
      me.sets.push_back(std::make_unique<Communicator>(
          me.controls.back(), worlds[i]->transport(rank, 1), 0, first(size), settings));
    }
  }
  std::vector<std::thread> threads;
  for (auto& rank : ranks) {
    for (int i = 0; i < sets; ++i) {
      threads.emplace_back([&, set = rank.sets[i].get(), i] {
        if (shared) CHECK(set->share_memory(machines));
        program(*set, i);
      });
    }
  }
  for (auto& thread : threads) thread.join();
}

using Values = std::vector<std::vector<float>>;

/// Matrices and a vector; of `name`, in two buckets.
std::shared_ptr<Plan> plan_of(const Communicator& set, std::shared_ptr<Method> method,
                              const std::string& name) {
  auto plan = std::make_shared<Plan>();
  plan->call.kind = "grouped_allreduce";
  plan->call.name = name;
  const std::vector<std::vector<std::int64_t>> shapes{{40, 30}, {7, 100}, {300}};
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    std::size_t elements = 1;
    for (const auto length : shapes[i]) elements *= static_cast<std::size_t>(length);
    plan->parameters.push_back({name + std::to_string(i), shapes[i], DType::float32, elements});
    plan->reductions.push_back({.divisor = static_cast<double>(set.size())});
  }
  plan->in_floats = plan->reductions[0];
  plan->averages = true;
  plan->growth = 2.0 * set.size();
  plan->add(std::move(method), {0, 1, 2}, 5000);
  CHECK(plan->ways[0].in_floats.size() == 2);
  plan->call.known_fingerprint = plan->call.fingerprint();
  return plan;
}

/// Returns whether all was reduced exactly.
bool reduce(Communicator& set, const std::shared_ptr<Plan>& plan, Values& values) {
  const auto method = plan->ways[0].method.lock();
  const auto& buckets = plan->ways[0].buckets;
  const auto held = method->enter(set, buckets);
  const auto call = std::make_shared<GroupedCall>(
      GroupedCall{plan, set, {}, {method}, method->feeds_back(set, buckets), false, {}});
  for (auto& each : values)
    call->arrays.push_back({buffer_of(std::span(each)), buffer_of(std::span(each))});
  const auto begin = [&](Routes& routes, Operation& operation) {
    return reduce_group(call, routes, operation);
  };
  set.run(plan->call, begin, [&] { return plan->outlines(); });
  if (call->error) std::rethrow_exception(call->error);
  return call->exactly;
}

Values gradients(int rank, int step) {
  Values values;
  for (const int count : {1200, 700, 300}) {
    values.emplace_back();
    for (int i = 0; i < count; ++i)
      values.back().push_back(static_cast<float>((i * 37 + rank * 11 + step * 5) % 101 - 50));
  }
  return values;
}

std::shared_ptr<Codec> codec(int number) {
  switch (number) {
    case 0:
      return std::make_shared<Compressing>(make_compressor("int4"), "0");
    case 1:
      return std::make_shared<Compressing>(std::make_shared<TopK>(0.1), "0");
    case 2:
      return std::make_shared<IntegerSums>(
          std::make_shared<SharedScale>(4, 256, Rounding::stochastic), "1");
    default:
      return std::make_shared<PowerSgd>(2, "3");
  }
}

constexpr int kMethods = 6;

std::shared_ptr<Method> method(int number) {
  if (number < 4)
    return std::make_shared<ErrorFeedback>(codec(number), std::make_shared<Residuals>());
  if (number == 4) return codec(0);
  return std::make_shared<Dgc>(Dgc::Settings{0.1, 0.9, 3.0, 3}, std::make_shared<Residuals>(),
                               std::make_shared<Residuals>());
}

void test_methods(int size, const std::vector<int>& machines, bool shared) {
  for (int number = 0; number < kMethods; ++number) {
    std::vector<Values> results(size);
    run(size, 1, machines, shared, [&](Communicator& set, int) {
      const auto mine = method(number);
      const auto plan = plan_of(set, mine, "g");
      for (int step = 0; step < 4; ++step) {
        auto values = gradients(set.rank(), step);
        const bool spoilt = step == 2 && mine->feeds_back(set, plan->ways[0].buckets);
        if (spoilt && set.rank() == size - 1)
          values[1][3] = std::numeric_limits<float>::quiet_NaN();
        CHECK(reduce(set, plan, values) == spoilt);
        if (spoilt) CHECK(std::isnan(values[1][3]) && !std::isnan(values[1][4]));
        if (step == 3) results[set.rank()] = values;
      }
    });
    for (const auto& result : results) CHECK(result == results[0]);
  }
}

/// Threads of one rank reduce other parameters by the same method, on other sets.
void test_threads_share_methods() {
  constexpr int kSize = 2, kSets = 3;
  for (int number = 0; number < kMethods; ++number) {
    std::vector<std::shared_ptr<Method>> methods;
    for (int rank = 0; rank < kSize; ++rank) methods.push_back(method(number));
    run(kSize, kSets, {}, false, [&](Communicator& set, int thread) {
      const auto plan = plan_of(set, methods[set.rank()], "set" + std::to_string(thread));
      for (int step = 0; step < 3; ++step) {
        auto values = gradients(set.rank(), step);
        CHECK(!reduce(set, plan, values));
      }
    });
  }
}

/// A method that asks for a thread of the caller, and what it does there.
class Asking final : public Codec {
 public:
  explicit Asking(std::function<void()> function) : Codec(true), function_(std::move(function)) {}

  using Codec::reduce;
  Task<> reduce(Ranks& ranks, Bucket bucket, std::span<float>, std::uint64_t) override {
    const auto asked = ranks.lane().control().requests().ask(function_);
    co_await asked;
    co_await ranks.allreduce(bucket.pieces(), bucket.reduction);
  }

 private:
  const std::function<void()> function_;
};

void test_requests() {
  std::atomic<int> asked = 0;
  run(2, 1, {}, false, [&](Communicator& set, int) {
    const auto here = std::this_thread::get_id();
    const auto asking = std::make_shared<Asking>([&asked, here] {
      CHECK(std::this_thread::get_id() == here);
      ++asked;
    });
    const auto plan = plan_of(set, asking, "g");
    auto values = gradients(set.rank(), 0);
    CHECK(!reduce(set, plan, values));
  });
  CHECK(asked == 4);  // two ranks with two buckets
}

/// What all ranks refuse a call with leaves them as they are; what one throws ends the job for all.
void test_requests_that_throw(bool refuses) {
  std::atomic<int> ended = 0;
  run(2, 1, {}, false, [&](Communicator& set, int) {
    const auto asking = std::make_shared<Asking>([&set, refuses] {
      const auto error = std::make_exception_ptr(ArgumentError("not today"));
      if (refuses) throw Refused(error);
      if (set.rank() == 1) std::rethrow_exception(error);
    });
    auto values = gradients(set.rank(), 0);
    try {
      reduce(set, plan_of(set, asking, "g"), values);
    } catch (const ArgumentError& error) {
      CHECK(std::string(error.what()) == "not today");
      CHECK(refuses || set.rank() == 1);
      ++ended;
    } catch (const RankFailedError&) {
      CHECK(!refuses && set.rank() == 0);
      ++ended;
    }
    CHECK(set.failed() != refuses);
    if (refuses) barrier(set, call("barrier"));
  });
  CHECK(ended == 2);
}

/// Who abandons a request may free what its function uses: none runs any more, or ever will.
void test_abandoned_requests() {
  Requests requests;
  std::atomic<bool> begun = false, may_end = false, ended = false;
  const auto first = requests.ask([&] {
    begun = true;
    while (!may_end) std::this_thread::yield();
    ended = true;
  });
  const auto second = requests.ask([] { CHECK(false); });
  std::thread runs([&] { requests.run(); });
  while (!begun) std::this_thread::yield();
  second->abandon();
  std::thread ends([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    may_end = true;
  });
  first->abandon();
  CHECK(ended);
  ends.join();
  runs.join();
}

}  // namespace

int main() {
  test_methods(1, {}, false);
  test_methods(3, {}, false);
  test_methods(2, {}, true);
  test_methods(4, {0, 0, 1, 1}, true);
  test_threads_share_methods();
  test_requests();
  test_requests_that_throw(true);
  test_requests_that_throw(false);
  test_abandoned_requests();
  std::puts("methods: ok");
}
