// Ranks as threads through everything that ranks share, for the sanitizers: collectives under
// random delays, exact and compressed, calls that differ, ranks that give up, several threads of
// one rank, and ends under their calls.
#include "collective/communicator.h"

#include <algorithm>
#include <atomic>
#include <barrier>
#include <chrono>
#include <cmath>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "collectives.h"
#include "compress/random_k.h"
#include "compress/table.h"
#include "compress/top_k.h"
#include "core/error.h"
#include "core/keep.h"
#include "node/heap.h"
#include "transport/inproc.h"

namespace {

using namespace ronde;

struct Rank {
  std::shared_ptr<Control> control;
  std::unique_ptr<Communicator> communicator;
  int rank, size;
};

Settings quick() {
  Settings settings;
  settings.spin = false;
  settings.segment_bytes = 512;
  settings.window = 8;
  settings.stall_warning = 60;
  settings.stall_timeout = 120;
  return settings;
}

std::vector<int> first(int size) {
  std::vector<int> ranks(size);
  for (int i = 0; i < size; ++i) ranks[i] = i;
  return ranks;
}

void run(int size, Faults faults, Settings settings, const std::function<void(Rank&)>& program,
         bool shared = false) {
  InprocWorld world(size, faults);
  std::vector<Rank> ranks;
  for (int rank = 0; rank < size; ++rank) {
    auto control = std::make_shared<Control>(world.transport(rank, 0), Hooks{});
    auto communicator =
        std::make_unique<Communicator>(control, world.transport(rank, 1), 0, first(size), settings);
    ranks.push_back({control, std::move(communicator), rank, size});
  }
  std::vector<std::thread> threads;
  for (auto& rank : ranks)
    threads.emplace_back([&program, &rank, shared] {
      if (shared) CHECK(rank.communicator->share_memory());
      program(rank);
    });
  for (auto& thread : threads) thread.join();
}

template <class T>
Buffer buffer_of(std::vector<T>& values) {
  return {reinterpret_cast<std::byte*>(values.data()), values.size() * sizeof(T), {}};
}

void allreduce(Rank& me, std::vector<float>& values, std::string_view algorithm = {}) {
  const Piece piece{buffer_of(values), buffer_of(values)};
  allreduce(*me.communicator, call("allreduce"), {&piece, 1}, {}, algorithm);
}

void collectives_under_delays(unsigned seed) {
  run(5, {.seed = seed, .delay = 0.3}, quick(), [seed](Rank& me) {
    std::mt19937 common(seed);  // the same draws on all ranks
    for (int i = 0; i < 25; ++i) {
      const std::size_t count = common() % 2000;
      std::vector<float> values(count, static_cast<float>(me.rank + 1));
      for (const auto& algorithm : algorithms()) {
        if (algorithm.collective != Collective::allreduce) continue;
        values.assign(count, static_cast<float>(me.rank + 1));
        allreduce(me, values, algorithm.name);
        for (const float value : values) CHECK(value == 15.0f);
      }
      const int root = static_cast<int>(common() % me.size);
      values.assign(count, static_cast<float>(me.rank));
      broadcast(*me.communicator, call("broadcast"), buffer_of(values), root);
      for (const float value : values) CHECK(value == static_cast<float>(root));

      const std::size_t rows = count / (me.rank + 1);
      const auto gathered = allgather(*me.communicator, call("allgather"),
                                      {buffer_of(values).slice(0, rows * 4), rows, 4});
      CHECK(gathered.rows[0] == count);
      barrier(*me.communicator, call("barrier"));
    }
    me.communicator->know_link();
    me.communicator->end(call("end"), {});
    CHECK(me.control->close());
  });
}

void calls_that_differ() {
  run(4, {.seed = 1, .delay = 0.2}, quick(), [](Rank& me) {
    for (int i = 0; i < 50; ++i) {
      bool raised = false;
      try {
        barrier(*me.communicator, call(me.rank == i % 4 ? "odd" : "usual"));
      } catch (const MismatchError&) {
        raised = true;
      }
      CHECK(raised);
      std::vector<float> values(10, 1.0f);
      allreduce(me, values);
      CHECK(values[0] == 4.0f);
    }
  });
}

void a_rank_that_never_comes() {
  auto settings = quick();
  settings.stall_warning = 0.05;
  settings.stall_timeout = 0.7;
  run(4, {}, settings, [](Rank& me) {
    if (me.rank == 3) return;
    bool raised = false;
    try {
      barrier(*me.communicator, call("barrier"));
    } catch (const StalledError& error) {
      raised = std::string(error.what()).find("\n  3      in no call") != std::string::npos;
    }
    CHECK(raised);
  });
}

void a_rank_that_dies() {
  run(4, {.dies = 2, .dies_after = 40}, quick(), [](Rank& me) {
    // Messages of the failed call may still be read, so their memory must not end with this rank.
    const auto kept = std::make_shared<std::vector<float>>(3000, 1.0f);
    keep_until_exit(kept);
    auto& values = *kept;
    bool raised = false;
    try {
      for (int i = 0; i < 100; ++i) allreduce(me, values);
    } catch (const RankFailedError&) {
      raised = true;
    }
    CHECK(raised);
  });
}

// A call that gives up while its messages are under way, and a rank that comes when it is too late:
// what was packed for the call must still be there to be read.
void a_late_rank_reads_what_was_packed() {
  auto settings = quick();
  settings.check = false;
  settings.stall_warning = 0;
  settings.stall_timeout = 0.5;
  settings.algorithm["allreduce"] = "one_shot";
  run(2, {}, settings, [](Rank& me) {
    const auto kept = std::make_shared<std::vector<float>>(2000, 1.0f);
    keep_until_exit(kept);
    const auto whole = buffer_of(*kept);
    const std::vector<Piece> pieces = {{whole.slice(0, 4000), whole.slice(0, 4000)},
                                       {whole.slice(4000, 4000), whole.slice(4000, 4000)}};
    if (me.rank == 1) std::this_thread::sleep_for(std::chrono::seconds(1));
    bool raised = false;
    try {
      allreduce(*me.communicator, call("allreduce"), pieces, {});
      allreduce(*me.communicator, call("allreduce"), pieces, {});
    } catch (const Error&) {
      raised = true;
    }
    CHECK(raised);
    // A failed rank stays failed, checks or none.
    bool refused = false;
    try {
      allreduce(*me.communicator, call("allreduce"), pieces, {});
    } catch (const Error&) {
      refused = true;
    }
    CHECK(refused);
  });
}

/// Floats in ordinary memory or in memory that all ranks can reach.
class Floats {
 public:
  Floats(std::size_t count, bool shared, float value) : count_(count), plain_(shared ? 0 : count) {
    if (shared) block_ = Heap::instance().allocate(count * sizeof(float));
    std::fill_n(data(), count, value);
  }
  ~Floats() {
    if (block_) Heap::instance().free(block_);
  }
  float* data() { return block_ ? reinterpret_cast<float*>(block_) : plain_.data(); }
  Buffer buffer() { return {reinterpret_cast<std::byte*>(data()), count_ * sizeof(float), {}}; }
  bool all(float value) {
    return std::all_of(data(), data() + count_, [&](float each) { return each == value; });
  }

 private:
  const std::size_t count_;
  std::byte* block_ = nullptr;
  std::vector<float> plain_;
};

/// All collectives once, on vectors of `count` in memory of either kind.
void everything(Rank& me, std::size_t count, bool shared, int root) {
  Floats values(count, shared, static_cast<float>(me.rank + 1));
  const Piece piece{values.buffer(), values.buffer()};
  const float total = static_cast<float>(me.size * (me.size + 1) / 2);
  allreduce(*me.communicator, call("allreduce"), {&piece, 1}, {});
  CHECK(values.all(total));

  std::vector<std::size_t> rows(me.size, count / me.size);
  rows[me.size - 1] += count % me.size;
  Floats part(rows[me.rank], false, 0);
  reduce_scatter(*me.communicator, call("reduce_scatter"), values.buffer(), part.buffer(),
                 Chunks::of(rows));
  CHECK(part.all(total * static_cast<float>(me.size)));

  Floats result(me.rank == root ? count : 0, shared, 0);
  reduce(*me.communicator, call("reduce"), {values.buffer(), result.buffer()}, root);
  CHECK(result.all(total * static_cast<float>(me.size)));

  Floats data(count, shared, static_cast<float>(me.rank));
  broadcast(*me.communicator, call("broadcast"), data.buffer(), root);
  CHECK(data.all(static_cast<float>(root)));

  const auto gathered =
      allgather(*me.communicator, call("allgather"), {part.buffer(), rows[me.rank], 4});
  CHECK(gathered.data.size() == count * 4 && gathered.rows == rows);
  const auto sent = alltoall(*me.communicator, call("alltoall"), {values.buffer(), rows, 4});
  CHECK(sent.data.size() == me.size * rows[me.rank] * 4);
}

// Vectors of one chunk and of many, calls that differ in between, and random delays between the
// calls.
void memory_under_delays(unsigned seed) {
  const auto program = [seed](Rank& me) {
    std::mt19937 common(seed), own(seed + 100 * me.rank);
    for (int i = 0; i < 30; ++i) {
      const std::size_t limits[] = {10, 1500, 30000, 200000};
      const std::size_t count = common() % limits[common() % 4];
      std::vector<float> values(count, static_cast<float>(me.rank + 1));
      if (own() % 3 == 0) std::this_thread::sleep_for(std::chrono::microseconds(own() % 2000));
      allreduce(me, values);
      for (const float value : values) CHECK(value == 15.0f);
      // Some ranks in either kind of memory, all in one or the other.
      const bool mixed = common() % 3 == 0, shared = common() % 2 == 0;
      everything(me, count, mixed ? (me.rank + i) % 2 == 0 : shared,
                 static_cast<int>(common() % me.size));
      const int odd = static_cast<int>(common() % 10);
      bool raised = false;
      try {
        barrier(*me.communicator, call(me.rank == odd ? "odd" : "usual"));
      } catch (const MismatchError&) {
        raised = true;
      }
      CHECK(raised == (odd < me.size));
    }
  };
  run(5, {}, quick(), program, true);
}

// Two machines of three ranks: shared memory inside, the network between.
void machines_under_delays(unsigned seed) {
  InprocWorld world(6, {.seed = seed, .delay = 0.2});
  const std::vector<int> machines = {0, 1, 0, 1, 0, 1};
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 6; ++rank) {
    threads.emplace_back([&world, &machines, rank, seed] {
      auto control = std::make_shared<Control>(world.transport(rank, 0), Hooks{});
      Communicator communicator(control, world.transport(rank, 1), 0, first(6), quick());
      CHECK(communicator.share_memory(machines));
      std::mt19937 common(seed);
      for (int i = 0; i < 20; ++i) {
        std::vector<float> values(common() % (i % 2 ? 100 : 5000), static_cast<float>(rank + 1));
        const Piece piece{buffer_of(values), buffer_of(values)};
        allreduce(communicator, call("allreduce"), {&piece, 1}, {});
        for (const float value : values) CHECK(value == 21.0f);
        bool raised = false;
        const int odd = static_cast<int>(common() % 12);
        try {
          barrier(communicator, call(rank == odd ? "odd" : "usual"));
        } catch (const MismatchError&) {
          raised = true;
        }
        CHECK(raised == (odd < 6));
      }
    });
  }
  for (auto& thread : threads) thread.join();
}

// Each rank on a machine of its own, or machines of two; vectors of a few elements up to more
// segments than are under way. All must get the same bits, and what the residuals hold is what the
// results lack. Sparse payloads go by slices or to all, as the link says.
void compressed_under_delays(unsigned seed, const std::shared_ptr<const Compressor>& compressor,
                             bool machines, const Link& link) {
  constexpr int kSize = 4;
  constexpr std::size_t kCounts[] = {40, 5000, 150000, 1200000};
  InprocWorld world(kSize, {.seed = seed, .delay = 0.2});
  std::vector<std::vector<float>> results(kSize), residuals(kSize);
  std::vector<std::shared_ptr<Control>> controls(kSize);
  for (int rank = 0; rank < kSize; ++rank)
    controls[rank] = std::make_shared<Control>(world.transport(rank, 0), Hooks{});
  std::barrier together(kSize);  // to look at what others have got
  const auto program = [&](int rank) {
    auto settings = quick();
    settings.segment_bytes = 4096;
    Communicator communicator(controls[rank], world.transport(rank, 1), 0, first(kSize), settings);
    if (machines) CHECK(communicator.share_memory(std::vector{0, 0, 1, 1}));
    communicator.set_link(link);
    for (const std::size_t count : kCounts) {
      results[rank].assign(count, 0.0f);
      residuals[rank].assign(count, 0.0f);
      std::vector<double> account(count);
      for (unsigned step = 0; step < 2; ++step) {
        const auto value = [&](int of, std::size_t i) {
          return static_cast<float>((i * 37 + of * 11 + step * 5) % 201) - 100.0f;
        };
        std::vector<float> values(count);
        for (std::size_t i = 0; i < count; ++i) values[i] = value(rank, i);
        const Piece piece{buffer_of(values), buffer_of(results[rank])};
        const Compression compression{
            .compressor = compressor, .residual = residuals[rank], .key = step};
        communicator.allreduce_compressed(call("compressed"), {&piece, 1}, {}, compression);
        for (std::size_t i = 0; i < count; ++i) {
          for (int of = 0; of < kSize; ++of) account[i] += value(of, i);
          account[i] -= results[rank][i];
        }
      }
      together.arrive_and_wait();
      CHECK(results[rank] == results[0]);
      for (std::size_t i = 0; i < count; ++i) {
        for (int of = 0; of < kSize; ++of) account[i] -= residuals[of][i];
        CHECK(std::abs(account[i]) < 0.01);
      }
      together.arrive_and_wait();
    }
  };
  std::vector<std::thread> threads;
  for (int rank = 0; rank < kSize; ++rank) threads.emplace_back(program, rank);
  for (auto& thread : threads) thread.join();
}

// Without checks some calls are done in shared memory and others are not, so a rank may be far
// ahead.
void memory_without_checks(unsigned seed) {
  auto settings = quick();
  settings.check = false;
  const auto program = [seed](Rank& me) {
    std::mt19937 own(seed + 100 * me.rank);
    for (int i = 0; i < 200; ++i) {
      std::vector<float> values(2, 1.0f);
      allreduce(me, values);
      CHECK(values[1] == 3.0f);
      values[0] = static_cast<float>(me.rank + i);
      broadcast(*me.communicator, call("broadcast"), buffer_of(values), 0);
      CHECK(values[0] == static_cast<float>(i));
      if (own() % 4 == 0) std::this_thread::sleep_for(std::chrono::microseconds(own() % 500));
    }
  };
  run(3, {}, settings, program, true);
}

// Process sets at the same time from two threads of each rank, over one control channel.
void two_threads_of_each_rank() {
  constexpr int kSize = 3;
  InprocWorld world(kSize, {.seed = 5, .delay = 0.2});
  std::vector<std::thread> threads;
  for (int rank = 0; rank < kSize; ++rank) {
    auto control = std::make_shared<Control>(world.transport(rank, 0), Hooks{});
    for (int set = 0; set < 2; ++set) {
      threads.emplace_back([&world, control, rank, set] {
        Communicator communicator(control, world.transport(rank, 1 + set), set, first(kSize),
                                  quick());
        std::vector<float> values(500);
        for (int i = 0; i < 50; ++i) {
          values.assign(500, 1.0f);
          const Piece piece{buffer_of(values), buffer_of(values)};
          allreduce(communicator, call("allreduce"), {&piece, 1}, {});
          CHECK(values[499] == 3.0f);
        }
      });
    }
  }
  for (auto& thread : threads) thread.join();
}

// A thread of each rank is in calls on a process set when the set is closed, or when the job ends,
// now sooner on one rank and now on another. Each thread gets an error, and what it got before is
// right; then the set of all ranks goes on, or has ended.
void an_end_under_calls(unsigned seed, bool shared, bool job) {
  constexpr int kSize = 3;
  InprocWorld world(kSize, {.seed = seed, .delay = 0.2}), further(kSize, {.seed = seed + 1});
  std::vector<std::shared_ptr<Communicator>> kept(kSize);  // others may still take its messages
  std::barrier together(kSize);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < kSize; ++rank) {
    threads.emplace_back([&, rank] {
      const auto control = std::make_shared<Control>(world.transport(rank, 0), Hooks{});
      Communicator everybody(control, world.transport(rank, 1), 0, first(kSize), quick());
      const auto set = std::make_shared<Communicator>(control, further.transport(rank, 0), 1,
                                                      first(kSize), quick());
      kept[rank] = set;
      if (shared) CHECK(set->share_memory());
      std::thread caller([set] {
        const auto values = std::make_shared<std::vector<float>>(3000);
        keep_until_exit(values);
        bool refused = false;
        while (!refused) {
          try {
            values->assign(3000, 1.0f);
            const Piece piece{buffer_of(*values), buffer_of(*values)};
            allreduce(*set, call("allreduce"), {&piece, 1}, {});
            CHECK((*values)[2999] == static_cast<float>(set->size()));
          } catch (const Error&) {
            refused = true;
          }
        }
      });
      std::mt19937 own(seed + 100 * rank);
      std::this_thread::sleep_for(std::chrono::milliseconds(own() % 60));
      Communicator* const sets[] = {set.get()};
      if (job) {
        everybody.end(call("shutdown"), sets);
      } else {
        barrier(everybody, call("remove"));
      }
      (void)set->close("closed");
      caller.join();
      if (job) CHECK(control->close());
      if (!job) barrier(everybody, call("goes on"));
      CHECK(!control->failed());
      together.arrive_and_wait();
    });
  }
  for (auto& thread : threads) thread.join();
}

// A rank leaves while another waits for it in a process set: that one raises, and can end too. If
// the end is refused, the set works on.
void a_rank_that_leaves() {
  constexpr int kSize = 3;
  InprocWorld world(kSize), further(2);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < kSize; ++rank) {
    threads.emplace_back([&, rank] {
      const auto control = std::make_shared<Control>(world.transport(rank, 0), Hooks{});
      Communicator everybody(control, world.transport(rank, 1), 0, first(kSize), quick());
      std::vector<Communicator*> sets;
      std::shared_ptr<Communicator> set;
      if (rank < 2) {
        set = std::make_shared<Communicator>(control, further.transport(rank, 0), 1, first(2),
                                             quick());
        keep_until_exit(set);
        sets.push_back(set.get());
        barrier(*set, call("first"));
      }
      bool raised = false;
      try {
        if (rank == 1) everybody.end(call("shutdown"), sets);
        barrier(everybody, call("others work"));
      } catch (const MismatchError&) {
        raised = true;
      }
      CHECK(raised);
      if (rank < 2) barrier(*set, call("works on"));
      if (rank == 0) {
        std::string why;
        try {
          barrier(*set, call("in vain"));
        } catch (const RankFailedError& error) {
          why = error.what();
        }
        CHECK(why.find("rank 1 has left: shutdown") != std::string::npos);
      }
      everybody.end(call("shutdown"), sets);
      CHECK(!control->failed() && control->close());
    });
  }
  for (auto& thread : threads) thread.join();
}

// A handler of signals that makes a call, or ends the job, during a call of the same thread.
void a_call_inside_a_call() {
  InprocWorld world(2);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 2; ++rank) {
    threads.emplace_back([&world, rank] {
      Communicator *job = nullptr, *set = nullptr;
      int refused = 0, ends_refused = 0;
      Hooks hooks;
      hooks.check_signals = [&] {
        try {
          barrier(*set, call("from a handler"));
        } catch (const Error&) {
          ++refused;
        }
        try {
          job->end(call("shutdown from a handler"), {&set, 1});
        } catch (const Error&) {
          ++ends_refused;
        }
      };
      auto control = std::make_shared<Control>(world.transport(rank, 0), hooks);
      Communicator everybody(control, world.transport(rank, 1), 0, first(2), quick());
      Communicator communicator(control, world.transport(rank, 2), 1, first(2), quick());
      job = &everybody;
      set = &communicator;
      if (rank == 1) std::this_thread::sleep_for(std::chrono::milliseconds(200));
      barrier(communicator, call("barrier"));
      CHECK(rank == 1 || (refused > 0 && ends_refused > 0));
      barrier(communicator, call("goes on"));
    });
  }
  for (auto& thread : threads) thread.join();
}

// A handler of signals raises while its thread ends the job, before it has its turn or when it
// waits for the other rank. Another thread has waited for the end: it gets its turn, or an error
// where the rank has given up.
void an_end_that_is_interrupted(bool has_turn) {
  InprocWorld world(2);
  const auto ender = std::this_thread::get_id();
  std::atomic<bool> caller_waits = false;
  Hooks hooks;
  hooks.check_signals = [&] {
    if (std::this_thread::get_id() != ender)
      caller_waits = true;
    else if (caller_waits)
      throw std::runtime_error("stop");
  };
  const auto control = std::make_shared<Control>(world.transport(0, 0), hooks);
  const auto others = std::make_shared<Control>(world.transport(1, 0), Hooks{});
  Communicator communicator(control, world.transport(0, 1), 0, first(2), quick());
  Communicator other(others, world.transport(1, 1), 0, first(2), quick());
  bool refused = false;
  std::thread caller([&] {
    try {
      if (!has_turn) barrier(communicator, call("first"));
      while (has_turn && !control->ending()) std::this_thread::yield();
      barrier(communicator, call("second"));
    } catch (const Error&) {
      refused = true;
    }
  });
  while (!has_turn && !caller_waits) std::this_thread::yield();
  std::string why;
  try {
    communicator.end(call("shutdown"), {});
  } catch (const std::runtime_error& error) {
    why = error.what();
  }
  CHECK(why == "stop");
  if (!has_turn) {
    barrier(other, call("first"));
    barrier(other, call("second"));
  }
  caller.join();
  CHECK(refused == has_turn);
}

}  // namespace

int main() {
  for (unsigned seed = 0; seed < 4; ++seed) collectives_under_delays(seed);
  for (unsigned seed = 0; seed < 4; ++seed) memory_under_delays(seed);
  for (unsigned seed = 0; seed < 4; ++seed) memory_without_checks(seed);
  for (unsigned seed = 0; seed < 2; ++seed) machines_under_delays(seed);
  const std::shared_ptr<const Compressor> int4 = make_compressor("int4");
  const std::shared_ptr<const Compressor> topk = std::make_shared<TopK>(0.02);
  const std::shared_ptr<const Compressor> random = std::make_shared<RandomK>(0.02);
  const Link by_slices{.alpha = 1e-12, .overhead = 1e-12, .beta = 1}, to_all{.alpha = 1};
  for (unsigned seed = 0; seed < 2; ++seed) {
    for (const auto& compressor : {int4, topk, random})
      compressed_under_delays(seed, compressor, seed % 2 == 1, by_slices);
    compressed_under_delays(seed, topk, seed % 2 == 1, to_all);
  }
  calls_that_differ();
  a_rank_that_never_comes();
  a_rank_that_dies();
  a_late_rank_reads_what_was_packed();
  two_threads_of_each_rank();
  for (unsigned seed = 0; seed < 6; ++seed) an_end_under_calls(seed, seed % 2 == 1, seed % 3 == 0);
  a_rank_that_leaves();
  a_call_inside_a_call();
  for (const bool has_turn : {true, false}) an_end_that_is_interrupted(has_turn);
  std::puts("communicator: ok");
}
