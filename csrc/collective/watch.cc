#include "collective/watch.h"

#include <cstdio>
#include <exception>

#include "core/error.h"
#include "core/text.h"

namespace ronde {
namespace {

/// Between asking the others where they stand and counting who has not answered. A rank that waits
/// answers within milliseconds; one that began to wait a little later than this one may take
/// longer.
constexpr double kGrace = 0.5;

// Of a call's text, so that its call site fits into a notice too.
constexpr std::size_t kCallBytes = 500;

std::string seconds(double value) {
  char text[32];
  std::snprintf(text, sizeof text, value < 10 ? "%.1f s" : "%.0f s", value);
  return text;
}

}  // namespace

Watch::Watch(Control& control, const Settings& settings, const std::vector<int>& members, int set,
             std::uint64_t sequence, const Call& call, bool patient)
    : control_(control),
      settings_(settings),
      members_(members),
      set_(set),
      sequence_(sequence),
      call_(call),
      patient_(patient),
      exceptions_(std::uncaught_exceptions()),
      warning_(settings.stall_warning) {}

Watch::~Watch() {
  // A rank that gives up says that next. The others must not report it as missing until then.
  if (std::uncaught_exceptions() > exceptions_) return;
  try {
    // After a patient wait the others may have gone.
    if (announced_ && !patient_ && !control_.failed()) control_.announce_resumed(standing());
  } catch (...) {
    // The next call of this rank fails in the same way and reports it.
  }
}

Standing Watch::standing() const {
  if (text_.empty()) {
    text_ = shortened(call_.text(), kCallBytes);
    if (set_ != 0) text_ += " on process set " + std::to_string(set_);
    if (const auto where = control_.hooks().where(); !where.empty())
      text_ += " at " + printable(where);
  }
  return {set_, sequence_, text_};
}

void Watch::announce() {
  if (announced_) return;
  announced_ = true;
  control_.announce_waiting(standing());
}

void Watch::check(double elapsed) {
  control_.hooks().check_signals();
  control_.poll(standing());
  if (control_.others_wait()) announce();
  const double timeout = patient_ ? 0 : settings_.stall_timeout;
  const bool warn = warning_ > 0 && elapsed > warning_;
  const bool give_up = timeout > 0 && elapsed > timeout;
  if (warn || (timeout > 0 && elapsed > timeout - kGrace)) announce();
  if (warn && (elapsed > warning_ + kGrace || give_up)) {
    warning_ = patient_ ? 2 * elapsed : 0;
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
  for (const int member : members_) {
    if (member == control_.rank()) continue;
    bool here = false;
    std::string elsewhere;
    for (const auto& theirs : control_.waiting(member)) {
      here |= theirs.same_call({set_, sequence_, {}});
      // A call of this set that is over says nothing about where the rank is now.
      if (theirs.set != set_) elsewhere += (elsewhere.empty() ? "" : ", and in ") + theirs.text;
    }
    if (here) continue;
    text += "\n  rank " + std::to_string(member) + " is missing: ";
    text += elsewhere.empty() ? "it is in no call (computing, stopped or dead)"
                              : "it waits in " + elsewhere;
  }
  return text.empty() ? "\n  all ranks are in the call, but no data moves" : text;
}

}  // namespace ronde
