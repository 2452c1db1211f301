#include "collective/turns.h"

#include <chrono>

#include "core/error.h"

namespace ronde {
namespace {

// Seconds for which a call may wait once its set is being closed. Where all members are in it, it
// makes progress sooner, and completes.
constexpr double kPatience = 0.5;

/// Until `done`, with an eye on Ctrl-C.
template <class Done>
void wait_until(Control& control, Done done) {
  for (int tries = 1; !done(); ++tries) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    if (tries % 20 == 0) control.hooks().check_signals();
  }
}

}  // namespace

Turns::~Turns() { delete refused_.load(); }

Turns::Turn Turns::take(const Call& call, bool joins) {
  // A thread gets here in a call of its own by a hook: a handler of signals, say.
  if (is_inside() || (lane_.set() != 0 && lane_.control().ends_here()))
    throw Error(
        call.text() +
        " was called, perhaps by a handler of signals or warnings or by a compressor, while the "
        "same thread was in a call of the same process set or in shutdown: neither call could "
        "complete");
  wait_until(lane_.control(), [&] {
    if (joined_)
      throw Error(call.text() +
                  " was called while another thread of this rank is in ronde.join on the same "
                  "process set, which says that this rank makes no more calls until all have "
                  "joined");
    return begin();
  });
  joined_ = joins;
  owner_.store(std::this_thread::get_id(), std::memory_order_relaxed);
  return Turn(*this);
}

void Turns::require_open() const {
  if (const auto* why = refused_.load()) throw Error(*why);
}

bool Turns::begin() {
  require_open();
  if (!may_begin() || !mutex_.try_lock()) return false;
  // That may have changed before the lock was taken.
  if (may_begin() && !refused_.load()) return true;
  end();
  return false;
}

void Turns::end() {
  owner_.store(std::thread::id(), std::memory_order_relaxed);
  joined_ = false;
  mutex_.unlock();
  try {
    if (lane_.control().ending()) leave();
  } catch (...) {
    // Who waits for this rank then finds out by the deadline.
  }
}

/// Once a thread has begun to end Ronde on this rank, it alone makes calls, with all ranks.
bool Turns::may_begin() const {
  const auto& control = lane_.control();
  return !control.ending() || (lane_.set() == 0 && control.ends_here());
}

void Turns::leave() {
  if (lane_.set() == 0) return;
  const std::unique_lock turn(mutex_, std::try_to_lock);
  if (turn.owns_lock())
    lane_.control().announce_leaving(lane_.set(), lane_.sequence(), lane_.members());
}

void Turns::refuse(const std::string& why) {
  const std::string* none = nullptr;
  auto text = std::make_unique<const std::string>(why);
  if (refused_.compare_exchange_strong(none, text.get())) (void)text.release();
}

bool Turns::close(const std::string& why) {
  if (is_inside()) throw Error("a call cannot remove the process set that it is made on");
  refuse(why);
  wait_until(lane_.control(), [&] { return mutex_.try_lock(); });
  mutex_.unlock();
  return !gave_up_;
}

void Turns::require_members(const Operation& operation, const Watch& watch, double elapsed) {
  const auto missing = lane_.control().missing(lane_.members(), lane_.set(), operation.sequence);
  if (missing) {
    const auto why = *missing + "\nwhile this rank was in " + watch.standing().text;
    refuse("this process set cannot be used any more, because " + why);
    gave_up_ = true;
    throw RankFailedError(why);
  }
  const auto* why = refused_.load();
  if (!why || elapsed < kPatience) return;
  gave_up_ = true;
  throw Error(*why + "\nwhile this rank was in " + watch.standing().text);
}

}  // namespace ronde
