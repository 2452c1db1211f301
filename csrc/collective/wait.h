// How a rank waits: the longer nothing happens, the less it disturbs.
//
// A spin as long as the work deserves (none where ranks outnumber cores: a spinning rank would keep
// the processor from the very rank it waits for), then sched_yield for about a millisecond, then
// sleeps that grow to a fifth of a millisecond.
#pragma once

#include <chrono>

#include "collective/work.h"

namespace ronde {

/// What a thread waits for that moves several things. Nothing wakes it, so its sleeps are short.
class Several final : public Work {
 public:
  /// `most`: the patience of the most patient of them.
  explicit Several(const Patience& most)
      : patience_(most.with({std::chrono::milliseconds(1), 10})) {}
  Progress progress() override { return Progress::idle; }
  Patience patience() const override { return patience_; }

 private:
  const Patience patience_;
};

class Wait {
 public:
  using Clock = std::chrono::steady_clock;

  explicit Wait(bool spin) : spin_(spin) {}

  /// Something happened: stay awake. Now and then true: time for the slow checks.
  bool moved();

  /// Nothing happened: give way.
  void pause(Work& work);

  /// Now and then while waiting, true: time for the slow checks.
  bool due();

  static constexpr auto kCheckEvery = std::chrono::milliseconds(20);
  // A pause that seems longer was a suspension of the whole process, by SIGSTOP or a scheduler of
  // jobs. The other ranks were suspended too, so it does not count as waiting.
  static constexpr auto kSuspended = std::chrono::seconds(1);

  /// Seconds in which nothing happened, as of the last pause that looked at the clock.
  double elapsed() const { return std::chrono::duration<double>(now_ - began_).count(); }

 private:
  const bool spin_;
  int yields_ = 0;
  bool waiting_ = false;  // since `began_`
  Clock::time_point began_, now_, checked_;
};

}  // namespace ronde
