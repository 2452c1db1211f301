#include "collective/wait.h"

#include <sched.h>

#include <algorithm>
#include <thread>

namespace ronde {

void Wait::pause() {
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
    if (checked_ == Clock::time_point()) checked_ = now_;
  }
  const int slow = idle_ - (spin_ ? kSpins : 0) - kYields;
  if (slow <= 0) {
    sched_yield();
  } else {
    std::this_thread::sleep_for(std::chrono::microseconds(std::min(10 * slow, 200)));
  }
}

bool Wait::due() {
  if (!waiting_ || now_ - checked_ < kCheckEvery) return false;
  checked_ = now_;
  return true;
}

}  // namespace ronde
