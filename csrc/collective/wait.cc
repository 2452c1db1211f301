#include "collective/wait.h"

#include <sched.h>

#include <algorithm>

namespace ronde {

void Wait::pause(Work& work) {
  const auto before = now_;
  now_ = Clock::now();
  if (waiting_ && now_ - before > kSuspended) began_ += now_ - before;
  if (!waiting_) {
    waiting_ = true;
    began_ = now_;
  }
  const auto patience = work.patience();
  if (spin_ && now_ - began_ < patience.spinning) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  } else if (++yields_ <= patience.yields) {
    sched_yield();
  } else {
    work.sleep(std::chrono::microseconds(10 * std::min(yields_ - patience.yields, 20)));
  }
}

bool Wait::moved() {
  yields_ = 0;
  waiting_ = false;
  now_ = Clock::now();
  return due();
}

bool Wait::due() {
  if (checked_ == Clock::time_point()) checked_ = now_;
  if (now_ - checked_ < kCheckEvery) return false;
  checked_ = now_;
  return true;
}

}  // namespace ronde
