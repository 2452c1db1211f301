// What a rank monitors while it waits in one call: Ctrl-C, failures of others, and the time.
#pragma once

#include <string>
#include <vector>

#include "collective/call.h"
#include "collective/control.h"
#include "collective/settings.h"

namespace ronde {

class Watch {
 public:
  /// `patient`: waits without a limit, as the end of a program does for ranks that still work, and
  /// warns at growing intervals.
  Watch(Control& control, const Settings& settings, const std::vector<int>& members, int set,
        std::uint64_t sequence, const Call& call, bool patient);
  ~Watch();
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  /// Called now and then, after `elapsed` seconds in which nothing happened. Throws what ends the
  /// wait: the signal's exception, RankFailedError or StalledError.
  void check(double elapsed);

  Standing standing() const;

 private:
  void announce();
  std::string missing() const;

  Control& control_;
  const Settings& settings_;
  const std::vector<int>& members_;
  const int set_;
  const std::uint64_t sequence_;
  const Call& call_;
  const bool patient_;
  mutable std::string text_;  // of the call and its call site, once asked for
  const int exceptions_;      // under way when this one began
  bool announced_ = false;
  double warning_;  // seconds of waiting until the next warning; 0 for never
};

}  // namespace ronde
