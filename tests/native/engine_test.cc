// Asynchronous calls under stress, for the sanitizers. Ranks are threads, several of each rank
// submit and wait, and messages are late. All ranks draw the same calls, on two process sets, and
// submit those with a name in an order of their own, step after step. Then ranks that run out of
// data at different times and join; short calls that are repeated; and ranks that die, stay away or
// give up.
//
//   engine_test [calls] [seed]    a million calls take about an hour
#include <atomic>
#include <csignal>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "asynchronous.h"

namespace {

using namespace ronde;
using namespace ronde::test;

char running[100] = "";  // what a failure reports

void report(int) {
  std::fputs(running, stderr);
  std::signal(SIGABRT, SIG_DFL);
}

// Programs that succeed ---------------------------------------------------------------------------

/// What all ranks do.
struct Step {
  std::vector<Wish> calls;
  std::vector<Wish> blocking;  // in this order, by the first thread, before it waits
  int threads;
};

/// One that makes the call.
int draw_rank(std::mt19937& common, const Shape& shape, const Wish& wish) {
  return static_cast<int>(wish.of_part + common() % (shape.size - wish.of_part));
}

/// The calls of every step, with a few changes: one is left out, or odd on a rank; others are
/// added, some of which a rank is late with.
Step draw_step(std::mt19937& common, const Shape& shape, const std::vector<Wish>& usual,
               unsigned number) {
  Step step{.calls = {}, .blocking = {}, .threads = 1 + static_cast<int>(common() % 3)};
  const bool varies = common() % 2;
  for (auto wish : usual) {
    if (varies && common() % 10 == 0) continue;
    if (varies && common() % 10 == 0) wish.odd = draw_rank(common, shape, wish);
    wish.salt += number;
    step.calls.push_back(wish);
  }
  for (auto more = varies ? common() % 5 : 0; more > 0; --more) {
    auto wish = draw(common, shape, "more " + std::to_string(number) + " " + std::to_string(more));
    if (common() % 2) wish.late = draw_rank(common, shape, wish);
    step.calls.push_back(wish);
  }
  for (auto more = common() % 3; more > 0; --more)
    step.blocking.push_back(draw(common, shape, "blocking"));
  return step;
}

/// Calls of all ranks alone.
Shape of_all(int size) { return {size, false, std::vector<int>(size)}; }

bool makes(const Rank& me, const Wish& wish) { return me.part || !wish.of_part; }

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
  for (const auto& wish : step.calls)
    if (makes(me, wish)) (wish.late == me.rank ? left.owed : calls).push_back(wish);
  shuffle(calls, me.own);
  std::vector<std::vector<Issued>> awaited(step.threads);
  const auto work = [&](int thread, std::mt19937 own) {
    auto blocking = step.blocking.begin();
    const auto last = thread == 0 ? step.blocking.end() : blocking;
    const auto block_next = [&] {
      if (makes(me, *blocking)) block(me, *blocking);
      ++blocking;
    };
    std::vector<Issued> issued;
    for (std::size_t i = 0; i < calls.size(); ++i) {
      if (thread != (calls[i].name.empty() ? 0 : static_cast<int>(i) % step.threads)) continue;
      if (blocking != last && own() % 8 == 0) block_next();
      pause(own);
      issued.push_back(submit(me, calls[i]));
      if (own() % 4 == 0) me.engine->poll(*issued[own() % issued.size()].submission);
    }
    while (blocking != last) block_next();
    std::shuffle(issued.begin(), issued.end(), own);
    for (const auto& call : issued) {
      if (call.wish.late >= 0 && call.wish.late != me.rank) {
        awaited[thread].push_back(call);
      } else {
        wait(*me.engine, *call.submission, own);
        check(call);
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
    check(call);
  }
  for (const auto& some : awaited)
    left.awaited.insert(left.awaited.end(), some.begin(), some.end());
}

/// What all have pending runs, though nobody waits for it; what only this rank has ends.
void end(Rank& me, std::vector<Wish> pending, bool job) {
  std::mt19937 same(1);
  auto lone = draw(same, of_all(me.size), "");
  std::vector<Issued> common, own;
  for (auto i = me.own() % 3; i > 0; --i) {
    lone.name = "lone " + std::to_string(me.rank) + " " + std::to_string(i);
    own.push_back(submit(me, lone));
  }
  shuffle(pending, me.own);
  for (const auto& wish : pending)
    if (makes(me, wish)) common.push_back(submit(me, wish));
  for (auto i = me.own() % 200; i > 0 && !own.empty(); --i) me.engine->poll(*own[0].submission);
  std::this_thread::sleep_for(std::chrono::milliseconds(me.own() % (job ? 40 : 2)));
  const Call last = call("last");
  const auto sets = me.sets();
  if (job) me.engine->leave(sets);
  if (job) me.set->end(last, std::span(sets).subspan(1));
  std::uint8_t busy[2] = {};  // whether calls are pending on a set, on any rank
  for (std::size_t i = 0; i < sets.size(); ++i) busy[i] = me.engine->busy(*sets[i]);
  const Buffer flags{reinterpret_cast<std::byte*>(busy), sizeof busy, {}};
  const Piece piece{flags, flags};
  allreduce(*me.set, last, {&piece, 1}, {.dtype = DType::uint8, .op = ReduceOp::max});
  for (std::size_t i = 0; i < sets.size(); ++i) {
    if (busy[i] || !job) me.engine->drain(*sets[i], "the test ended");
    CHECK(!me.engine->busy(*sets[i]));
  }
  barrier(*me.set, last);
  for (auto* set : sets) CHECK(me.engine->close(*set, "the test ended"));
  for (const auto& call : common) check(call);
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
  for (auto* set : sets) CHECK(set->close("the test ended"));
  CHECK(me.control->close());
}

/// Returns how many calls there were.
std::size_t any_program(unsigned seed) {
  std::mt19937 common(seed);
  const auto shape = draw_shape(common);
  std::vector<Wish> usual;
  for (auto i = 5 + common() % 40; i > 0; --i)
    usual.push_back(draw(common, shape, std::to_string(i)));
  for (auto i = common() % 12; i > 0; --i) usual.push_back(draw(common, shape, ""));
  std::vector<Step> steps;
  for (unsigned i = 0; i < 6; ++i) steps.push_back(draw_step(common, shape, usual, i));
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
  const auto draw_one = [&](std::string name) {
    auto wish = draw(common, of_all(shape.size), std::move(name));
    wish.root = last_rank;
    // An average by another number would not be exact.
    wish.reduction.divisor = 1.0;
    return wish;
  };
  Step step{.calls = {}, .blocking = {}, .threads = 1};
  for (auto i = 5 + common() % 20; i > 0; --i)
    step.calls.push_back(draw_one(i % 4 ? std::to_string(i) : ""));
  for (auto i = common() % 4; i > 0; --i) step.blocking.push_back(draw_one(""));
  const Faults faults{.seed = seed, .delay = common() % 2 ? 0.1 : 0};
  run(shape, faults, kDeadline, [&](Rank& me) {
    const auto everybody = me.there;
    for (int epoch = 0; epoch < 2; ++epoch) {
      for (unsigned batch = 0; batch < batches[me.rank]; ++batch) {
        std::erase_if(me.there, [&](int rank) { return batch >= batches[rank]; });
        Left left;
        run_step(me, step, left);
      }
      CHECK(me.engine->join(*me.set, average) == last_rank);
      me.there = everybody;
    }
    end(me, step.calls, false);
  });
  return *last * (step.calls.size() + step.blocking.size());
}

/// The same short calls over and over, mostly in one order, so the ranks remember their slots. A
/// rank is late, or has them in another order, or describes one differently. Returns how many calls
/// there were.
std::size_t short_program(unsigned seed) {
  constexpr unsigned kRepeats = 30;
  std::mt19937 common(seed);
  auto shape = draw_shape(common);
  shape.shared = true;
  const bool fused = common() % 2;
  std::vector<Wish> usual;
  for (auto i = 1 + common() % 6; i > 0; --i) {
    auto wish = draw(common, of_all(shape.size), std::to_string(i));
    wish.kind = Kind::allreduce;
    wish.count %= 500;
    if (fused && !usual.empty()) wish.reduction = usual[0].reduction;
    usual.push_back(wish);
  }
  run(shape, {.seed = seed}, kDeadline, [&](Rank& me) {
    for (unsigned repeat = 0; repeat < kRepeats; ++repeat) {
      auto calls = usual;
      for (auto& wish : calls) wish.salt += repeat;
      if (repeat % 10 == 9) calls[0].odd = static_cast<int>(repeat / 10) % me.size;
      if (me.own() % 8 == 0) shuffle(calls, me.own);
      std::vector<Issued> issued;
      for (const auto& wish : calls) {
        pause(me.own);
        issued.push_back(submit(me, wish));
        if (me.own() % 8 == 0) me.engine->poll(*issued[0].submission);
      }
      // The worker has fallen asleep meanwhile, where there is one.
      if (me.own() % 8 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(3));
      for (const auto& call : issued) {
        wait(*me.engine, *call.submission, me.own);
        check(call);
      }
    }
    end(me, usual, false);
  });
  return kRepeats * usual.size();
}

// A name is taken until its call has ended, also while that runs. Whoever tried goes on.
void a_name_is_taken(bool shared) {
  run({2, shared, {}}, {.seed = 1, .delay = 0.1}, kDeadline, [](Rank& me) {
    std::mt19937 common(1);
    auto taken = draw(common, of_all(me.size), "taken");
    taken.count = 6000;
    const auto other = draw(common, of_all(me.size), "other");
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
      check(first);
      const auto second = submit(me, other);
      wait(*me.engine, *second.submission, me.own);
      check(second);
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
    usual.push_back(draw(common, of_all(shape.size), i % 4 ? std::to_string(i) : ""));
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
            CHECK(issued[i].arrays->right(issued[i].wish));
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
    for (auto* set : me.sets()) (void)me.engine->close(*set, "the test ended");
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
    calls += short_program(seed);
    if (round % 10 == 0)
      for (const auto fault : {Fault::dies, Fault::stays_away, Fault::gives_up})
        a_rank_that_fails(seed, fault);
    if (round % 100 == 99) std::printf("%zu calls, seed %u\n", calls, seed);
  }
  std::puts("engine: ok");
}
