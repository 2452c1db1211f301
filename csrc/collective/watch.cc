#include "collective/watch.h"

#include <cstdio>

#include "core/error.h"
#include "core/text.h"

namespace ronde {
namespace {

/// Between asking the others where they stand and counting who has not answered. A rank that waits
/// answers within milliseconds; one that began to wait a little later than this one may take
/// longer.
constexpr double kGrace = 0.5;

/// After so many seconds the call site is looked up for the flight record.
constexpr double kWorthASite = 0.2;

// Of a call's text, so that its call site fits into a notice too.
constexpr std::size_t kCallBytes = 500;

std::string seconds(double value) {
  char text[32];
  std::snprintf(text, sizeof text, value < 10 ? "%.1f s" : "%.0f s", value);
  return text;
}

}  // namespace

Watch::Watch(Lane& lane, Operation& operation)
    : lane_(lane),
      control_(lane.control()),
      operation_(operation),
      sequence_(operation.sequence),
      warning_(lane.settings().stall_warning) {}

void Watch::end() {
  // After a patient wait the others may have gone.
  if (!announced_ || operation_.patient || control_.failed()) return;
  announced_ = false;
  try {
    control_.announce_resumed(standing());
  } catch (...) {
    // The next call of this rank fails in the same way and reports it.
  }
}

Standing Watch::standing() const {
  if (text_.empty()) {
    text_ = operation_.call.text();
    if (operation_.about) text_ += operation_.about();
    text_ = shortened(text_, kCallBytes);
    if (lane_.set() != 0) text_ += " on process set " + std::to_string(lane_.set());
    if (const auto where = control_.hooks().where(); !where.empty())
      text_ += " at " + printable(where);
  }
  return {lane_.number(), operation_.sequence, text_};
}

void Watch::announce() {
  if (announced_) return;
  announced_ = true;
  control_.announce_waiting(standing());
}

/// For the counters and the flight record.
void Watch::note(double elapsed, int peer) {
  if (elapsed < waited_) waited_ = 0;  // something has moved: this is another wait
  if (waited_ == 0 && elapsed > 0) lane_.recorder().count(Counter::waits);
  const auto more = static_cast<std::uint64_t>((elapsed - waited_) * 1e9);
  lane_.recorder().count(Counter::wait_nanoseconds, more);
  waited_ = elapsed;
  auto& entry = operation_.entry;
  if (elapsed > 0) entry.waits(peer < 0 ? peer : lane_.members()[peer]);
  if (elapsed > kWorthASite && entry.lacks_site()) entry.stands_at(control_.hooks().where());
}

void Watch::check(double elapsed, int peer) {
  note(elapsed, peer);
  const auto& settings = lane_.settings();
  if (sequence_ != operation_.sequence) {
    end();  // of the wait before
    announced_ = false;
    sequence_ = operation_.sequence;
    warning_ = settings.stall_warning;
  }
  control_.poll(standing());
  if (control_.others_wait()) announce();
  const double timeout = operation_.patient ? 0 : settings.stall_timeout;
  const bool warn = warning_ > 0 && elapsed > warning_;
  const bool give_up = timeout > 0 && elapsed > timeout;
  if (warn || (timeout > 0 && elapsed > timeout - kGrace)) announce();
  if (warn && (elapsed > warning_ + kGrace || give_up)) {
    warning_ = operation_.patient ? 2 * elapsed : 0;
    control_.hooks().warn("rank " + std::to_string(control_.rank()) + " has waited " +
                          seconds(elapsed) + " in " + standing().text + missing());
  }
  if (give_up) {
    throw StalledError("waited " + seconds(elapsed) + " in " + standing().text + missing() +
                       "\n(RONDE_STALL_TIMEOUT is " + seconds(timeout) + ")");
  }
}

/// The missing ranks of this call, and what is known of them.
std::string Watch::missing() const {
  std::string text;
  for (const int member : lane_.members()) {
    if (member == control_.rank()) continue;
    bool here = false;
    std::string elsewhere;
    for (const auto& theirs : control_.waiting(member)) {
      here |= theirs.same_call(standing());
      // A call of this set that is over says nothing about where the rank is now.
      if (theirs.set != lane_.number())
        elsewhere += (elsewhere.empty() ? "" : ", and in ") + theirs.text;
    }
    if (here) continue;
    text += "\n  rank " + std::to_string(member) + " is missing: ";
    text += elsewhere.empty() ? "it is in no call (computing, stopped or dead)"
                              : "it waits in " + elsewhere;
  }
  return text.empty() ? "\n  all ranks are in the call, but no data moves" : text;
}

}  // namespace ronde
