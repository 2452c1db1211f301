// Tasks: their results, where errors arrive, what is left when one is destroyed.
#include "collective/task.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

#include "check.h"

namespace {

using ronde::Patience, ronde::Progress, ronde::Task, ronde::Work;
using std::chrono::microseconds;

constexpr int kLooks[] = {0, 1, 1000};  // done at once, at the second look, much later

/// A work that is idle for so many looks, and then done, or throws.
class Countdown final : public Work {
 public:
  explicit Countdown(int looks, const char* error = nullptr) : left_(looks), error_(error) {}

  Progress progress() override {
    CHECK(!over_);
    if (left_-- > 0) return Progress::idle;
    over_ = true;
    if (error_) throw std::runtime_error(error_);
    return Progress::done;
  }
  void abandon() override { ++abandoned; }
  Patience patience() const override { return {microseconds(left_), 10}; }
  void sleep(microseconds time) override { slept += time; }

  int abandoned = 0;
  microseconds slept{};

 private:
  int left_;
  const char* error_;
  bool over_ = false;
};
using Counts = std::shared_ptr<Countdown>;

Counts after(int looks, const char* error = nullptr) {
  return std::make_shared<Countdown>(looks, error);
}
bool is_released(const Counts& work) { return work->abandoned == 0 && work.use_count() == 1; }
bool is_abandoned_and_kept(const Counts& work) {
  return work->abandoned == 1 && work.use_count() == 2;
}

/// A local variable of a task: none may outlive its frame.
struct Local {
  static inline std::atomic<int> alive = 0;
  Local() { ++alive; }
  Local(const Local&) = delete;
  ~Local() { --alive; }
};

// Tasks ---------------------------------------------------------------------------------------

Task<> wait(const Counts& work) {
  const Local local;
  co_await work;
}

Task<std::unique_ptr<int>> make_seven(const Counts& work) {
  co_await work;
  co_return std::make_unique<int>(7);  // cannot be copied
}

/// The number of frames in each other: each waits before and after the one in it.
Task<int> nest(int depth, int odd, int even) {
  const Local local;
  const int looks = depth % 2 ? odd : even;
  co_await after(looks);
  if (depth == 1) co_return 1;
  const int below = co_await nest(depth - 1, odd, even);
  co_await after(looks);
  co_return below + 1;
}

Task<> fail(const Counts& work) {
  const Local local;
  if (work) co_await work;
  throw std::runtime_error("thrown");
}

template <class T>
Task<T> forward(Task<T> task) {
  const Local local;
  co_return co_await std::move(task);
}

/// The error that it catches. It goes on with another work.
template <class Awaited>
Task<std::string> catch_error(Awaited awaited, const Counts& then) {
  const Local local;
  std::string error;
  try {
    co_await std::move(awaited);
  } catch (const std::runtime_error& caught) {
    error = caught.what();
  }
  co_await then;
  co_return error;
}

template <class T>
T finish(Task<T> task) {
  while (task.progress() != Progress::done) continue;
  return task.result();
}

template <class T>
std::string error_of(Task<T> task) {
  try {
    finish(std::move(task));
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "none";
}

// Tests ---------------------------------------------------------------------------------------

void a_task_gives_its_result() {
  for (const int looks : kLooks) {
    const auto first = after(looks), second = after(looks);
    CHECK(*finish(make_seven(first)) == 7);
    finish(wait(second));
    CHECK(is_released(first) && is_released(second));
  }
}

void progress_tells_a_look_from_a_step() {
  auto task = nest(2, 2, 1);  // waits for one look, two looks, one look
  for (const auto expected : {Progress::moved, Progress::moved, Progress::idle, Progress::moved})
    CHECK(task.progress() == expected);
  CHECK(task.progress() == Progress::done && task.result() == 2);
}

void nested_tasks_end_at_once_or_later() {
  for (const int odd : kLooks) {
    for (const int even : kLooks) {
      for (const int depth : {1, 2, 3, 6}) CHECK(finish(nest(depth, odd, even)) == depth);
    }
  }
}

void an_error_arrives_where_the_task_waits() {
  CHECK(error_of(fail(nullptr)) == "thrown" && error_of(forward(fail(nullptr))) == "thrown");
  for (const int looks : kLooks) {
    CHECK(error_of(fail(after(looks))) == "thrown");
    CHECK(error_of(forward(forward(fail(after(looks))))) == "thrown");
    const auto work = after(looks, "lost"), nested = after(looks, "lost");
    CHECK(error_of(wait(work)) == "lost" && is_abandoned_and_kept(work));
    CHECK(error_of(forward(forward(wait(nested)))) == "lost" && is_abandoned_and_kept(nested));
    for (const int more : kLooks) {  // caught
      const auto here = after(looks, "lost"), below = after(looks, "lost");
      CHECK(finish(forward(catch_error(here, after(more)))) == "lost");
      CHECK(finish(forward(catch_error(forward(wait(below)), after(more)))) == "lost");
      CHECK(is_abandoned_and_kept(here) && is_abandoned_and_kept(below));
      CHECK(finish(catch_error(forward(fail(after(looks))), after(more))) == "thrown");
    }
  }
}

void an_interruption_is_thrown_in_the_innermost_frame() {
  const auto stalled = std::make_exception_ptr(std::runtime_error("stalled"));
  const auto work = after(9), then = after(9);
  {
    auto task = forward(catch_error(work, then));
    CHECK(task.progress() == Progress::moved);
    CHECK(task.interrupt(stalled) == Progress::moved);  // waits for the next work
    CHECK(is_abandoned_and_kept(work) && then->abandoned == 0);
    CHECK(task.interrupt(stalled) == Progress::done);  // not caught
    CHECK(is_abandoned_and_kept(then) && error_of(std::move(task)) == "stalled");
  }
  const auto nested = after(9), ready = after(0);
  auto task = catch_error(forward(wait(nested)), ready);
  task.progress();
  CHECK(task.interrupt(stalled) == Progress::done && task.result() == "stalled");
  CHECK(is_abandoned_and_kept(nested) && is_released(ready));
}

void destruction_abandons_the_work_and_destroys_all_locals() {
  const auto work = after(9), unused = after(9);
  {
    auto task = forward(forward(wait(work)));
    for (int i = 0; i < 3; ++i) task.progress();
    const auto moved = std::move(task);
    CHECK(Local::alive == 3 && work->abandoned == 0);
  }
  CHECK(is_abandoned_and_kept(work) && Local::alive == 0);
  static_cast<void>(forward(forward(wait(unused))));  // never begun
  CHECK(is_released(unused));
  for (int steps = 0; steps < 16; ++steps) {
    auto task = nest(4, 2, 1);
    for (int i = 0; i < steps && task.progress() != Progress::done;) ++i;
  }
}

void each_step_may_be_in_another_thread() {
  const auto elsewhere = [](const auto& step) { std::thread(step).join(); };
  const auto lost = after(3, "lost"), then = after(3);
  auto task = forward(catch_error(forward(wait(lost)), then));
  bool done = false;
  while (!done) elsewhere([&] { done = task.progress() == Progress::done; });
  CHECK(task.result() == "lost" && is_abandoned_and_kept(lost));
  auto begun = nest(5, 1, 2);
  begun.progress();
  std::thread([task = std::move(begun)]() mutable { CHECK(finish(std::move(task)) == 5); }).join();
}

void a_task_is_a_work_and_hands_on_what_it_is_asked() {
  const auto work = after(40), then = after(60), ready = after(0);
  auto inner = std::make_shared<Task<std::string>>(catch_error(wait(work), then));
  auto task = catch_error(std::move(inner), ready);
  for (const auto& awaited : {work, then}) {
    const int left = awaited == work ? 39 : 59;
    while (task.progress() != Progress::moved) continue;
    CHECK(task.patience().spinning == microseconds(left));
    task.sleep(microseconds(5));
    CHECK(awaited->slept == microseconds(5));
  }
  task.abandon();
  CHECK(work->abandoned == 0 && then->abandoned == 1);
  CHECK(finish(std::move(task)).empty());
}

/// Where on the stack it has been called.
struct Depth {
  std::uintptr_t low = UINTPTR_MAX, high = 0;

  [[gnu::noinline]] void see() {
    const auto here = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
    low = std::min(low, here), high = std::max(high, here);
  }
};

Task<> see(Depth& depth, int looks) {
  depth.see();
  co_await after(looks);
  depth.see();
}

Task<> see_often(Depth& depth, int every) {
  for (int i = 1; i <= 100'000; ++i) {
    const int looks = i % every == 0;
    co_await after(looks);
    depth.see();
    co_await see(depth, looks);
  }
}

void a_loop_does_not_deepen_the_stack() {
  constexpr std::size_t kMost = 32 << 10;  // less than a byte for each round
  for (const int every : {1, 2, 1000, 1'000'000}) {
    Depth depth;
    finish(see_often(depth, every));
    CHECK(depth.high - depth.low < kMost);
  }
}

}  // namespace

int main() {
  for (const auto test :
       {a_task_gives_its_result, progress_tells_a_look_from_a_step,
        nested_tasks_end_at_once_or_later, an_error_arrives_where_the_task_waits,
        an_interruption_is_thrown_in_the_innermost_frame,
        destruction_abandons_the_work_and_destroys_all_locals, each_step_may_be_in_another_thread,
        a_task_is_a_work_and_hands_on_what_it_is_asked, a_loop_does_not_deepen_the_stack}) {
    test();
    CHECK(Local::alive == 0);
  }
}
