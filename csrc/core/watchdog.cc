#include "core/watchdog.h"

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <utility>

#include "core/segment_names.h"

namespace ronde {

Watchdog::Watchdog(std::string text, double warning, double timeout)
    : text_(std::move(text)), thread_([this, warning, timeout] { watch(warning, timeout); }) {}

void Watchdog::stop() {
  {
    std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  changed_.notify_one();
  if (thread_.joinable()) thread_.join();
}

bool Watchdog::stopped_within(double seconds) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, std::chrono::duration<double>(seconds), [&] { return stopped_; });
}

void Watchdog::watch(double warning, double timeout) {
  constexpr double kNever = 1e8;  // three years
  const double end = timeout > 0 ? timeout : kNever;
  const bool warns = warning > 0 && warning < end;
  if (warns) {
    if (stopped_within(warning)) return;
    std::fprintf(stderr, "ronde: waited %.1f s %s\n", warning, text_.c_str());
  }
  if (stopped_within(end - (warns ? warning : 0))) return;
  std::fprintf(stderr, "ronde: gave up after %.1f s %s\n", end, text_.c_str());
  std::fflush(stderr);
  remove_segment_names();
  _exit(1);  // the launcher ends the other ranks
}

}  // namespace ronde
