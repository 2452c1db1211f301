// Monitors a call into somebody else's code that cannot be interrupted.
#pragma once

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

namespace ronde {

/// From its construction on to `stop`: after `warning` seconds it writes `text` to standard error,
/// and after `timeout` seconds it ends the process (0: never). It needs no lock of the language
/// above, because the monitored call may hold that.
class Watchdog {
 public:
  Watchdog(std::string text, double warning, double timeout);
  ~Watchdog() { stop(); }
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  void stop();

 private:
  void watch(double warning, double timeout);
  bool stopped_within(double seconds);

  const std::string text_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopped_ = false;
  std::thread thread_;  // last: it uses the others
};

}  // namespace ronde
