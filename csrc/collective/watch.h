// What a rank monitors while it waits in one call: failures of others, and the time.
#pragma once

#include <cstdint>
#include <string>

#include "collective/lane.h"

namespace ronde {

class Watch {
 public:
  Watch(Lane& lane, Operation& operation);
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  /// The call is over, and the ranks go on. (A rank that gives up says that instead: the others
  /// must not report it as missing until then.)
  void end();

  /// Called now and then, after `elapsed` seconds in which nothing happened. Throws what ends the
  /// wait: RankFailedError or StalledError. `peer`: what the work says that it waits for.
  void check(double elapsed, int peer = -1);

  Standing standing() const;

 private:
  void note(double elapsed, int peer);
  void announce();
  bool speaks() const;
  std::string table(double elapsed) const;

  Lane& lane_;
  Control& control_;
  Operation& operation_;
  mutable std::string text_;      // of the call and its call site, once asked for
  mutable std::size_t call_ = 0;  // how much of that is the call
  std::uint64_t sequence_;        // of the agreement that the next two are about
  bool announced_ = false;
  double waited_ = 0;  // seconds of the wait that were counted
  double warning_;     // seconds of waiting until the next warning; 0 for never
};

}  // namespace ronde
