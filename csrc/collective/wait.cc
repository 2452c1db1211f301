#include "collective/wait.h"

#include <sched.h>

#include <algorithm>

namespace ronde {

void Wait::pause(Work& work) {
  ++idle_;
  if (spin_ && idle_ <= kSpins) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
    return;
  }
  const auto before = now_;
  now_ = Clock::now();
  if (waiting_ && now_ - before > kSuspended) began_ += now_ - before;
  if (!waiting_) {
    waiting_ = true;
    began_ = now_;
  }
  const int slow = idle_ - (spin_ ? kSpins : 0) - kYields;
  if (slow <= 0) {
    sched_yield();
  } else {
    work.sleep(std::chrono::microseconds(std::min(10 * slow, 200)));
  }
}

bool Wait::moved() {
  idle_ = 0;
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
