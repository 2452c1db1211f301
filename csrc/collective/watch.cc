#include "collective/watch.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "collective/stall_table.h"
#include "core/error.h"
#include "core/text.h"
#include "trace/timeline.h"

namespace ronde {
namespace {

/// Between asking the others where they stand and counting who has not answered. A rank that waits
/// answers within milliseconds; one that began to wait a little later than this one may take
/// longer.
constexpr double kGrace = 0.5;

/// After so many seconds the call site is looked up for the flight record.
constexpr double kWorthASite = 0.2;

/// Less is not counted as a wait.
constexpr double kWait = 0.02;

// Of a call's text, so that its call site fits into a notice too.
constexpr std::size_t kCallBytes = 500;

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
    call_ = text_.size();
    if (const auto where = control_.hooks().where(); !where.empty())
      text_ += " at " + printable(where);
  }
  const auto waited = std::chrono::duration<double>(waited_);
  const auto since = std::chrono::steady_clock::now() -
                     std::chrono::duration_cast<std::chrono::steady_clock::duration>(waited);
  return {lane_.number(), operation_.sequence, text_, call_, since};
}

void Watch::announce() {
  if (announced_) return;
  announced_ = true;
  control_.announce_waiting(standing());
}

/// For the counters, the flight record and the timeline.
void Watch::note(double elapsed, int peer) {
  auto& recorder = lane_.recorder();
  const double counted = elapsed < kWait ? 0 : elapsed;
  if (counted < waited_) waited_ = 0;  // something has moved: this is another wait
  if (waited_ == 0 && counted > 0) recorder.count(Counter::waits);
  const auto more = static_cast<std::uint64_t>((counted - waited_) * 1e9);
  recorder.count(Counter::wait_nanoseconds, more);
  waited_ = counted;
  recorder.timeline().flush_at_times();
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
    text_.clear();
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
    lane_.recorder().count(Counter::stall_warnings);
    if (speaks())
      control_.hooks().warn("rank " + std::to_string(control_.rank()) + " has waited " +
                            seconds_text(elapsed) + " in " + standing().text + table(elapsed));
  }
  if (give_up) {
    control_.hooks().stalled();
    throw StalledError("waited " + seconds_text(elapsed) + " in " + standing().text +
                       table(elapsed) + "\n(RONDE_STALL_TIMEOUT is " + seconds_text(timeout) + ")");
  }
}

/// One rank warns for all that wait in the call: the first of the set.
bool Watch::speaks() const {
  const auto& members = lane_.members();
  return std::none_of(members.begin(), members.end(), [&](int member) {
    if (member >= control_.rank()) return false;
    const auto theirs = control_.waiting(member);
    return std::any_of(theirs.begin(), theirs.end(),
                       [&](const auto& each) { return each.same_call(standing()); });
  });
}

/// Where the members of the set are, by their own words.
std::string Watch::table(double elapsed) const {
  const auto mine = standing();
  const auto now = std::chrono::steady_clock::now();
  std::vector<StallRow> rows;
  bool complete = true;
  for (const int member : lane_.members()) {
    if (member == control_.rank()) {
      rows.push_back({member, "in the call", elapsed, mine.site()});
      continue;
    }
    const std::size_t before = rows.size();
    for (const auto& theirs : control_.waiting(member)) {
      const bool here = theirs.same_call(mine);
      // A call of this lane that is over says nothing about where the rank is now.
      if (!here && theirs.set == lane_.number()) continue;
      const auto state = here ? "in the call" : "in " + theirs.text.substr(0, theirs.call);
      const std::chrono::duration<double> waited = now - theirs.since;
      rows.push_back({member, state, waited.count(), theirs.site()});
      complete &= here;
    }
    if (rows.size() > before) continue;
    rows.push_back({member, "in no call (computing, stopped or dead)"});
    complete = false;
  }
  return stall_table(rows) + (complete ? "\n  all ranks are in the call, but no data moves" : "");
}

}  // namespace ronde
