#include "engine/queue.h"

#include <algorithm>
#include <utility>

#include "collective/mismatch.h"
#include "collective/share.h"
#include "collective/tell.h"
#include "collective/wait.h"
#include "core/error.h"

namespace ronde {
namespace {

using namespace std::chrono_literals;

constexpr auto kFirstPause = 50us, kLongestPause = 2000us;
constexpr auto kCheckEvery = 20ms;
// What seems longer was a suspension of the whole process (wait.h).
constexpr auto kSuspended = 1s;
constexpr std::size_t kShown = 5;  // pending calls that a report names

constexpr std::uint64_t kNegotiates = 0;  // in place of the fingerprint of a slot

bool equal(const Reduction& a, const Reduction& b) {
  return a.dtype == b.dtype && a.op == b.op && a.prescale == b.prescale && a.divisor == b.divisor &&
         a.postscale == b.postscale;
}

/// How often each key has been met so far.
using Met = std::unordered_map<std::string_view, std::size_t>;

}  // namespace

Queue::Queue(const Lane& blocking, std::size_t fusion_bytes)
    : blocking_(blocking), lane_(blocking), routes_(lane_), fusion_bytes_(fusion_bytes) {
  call_.kind = "asynchronous calls";
}

Queue::~Queue() {
  if (gave_up_ || lane_.control().failed()) lane_.keep_until_exit();
}

void Queue::submit(std::shared_ptr<Submission> submission) {
  if (!refused_.empty()) throw Error(refused_);
  const auto& call = submission->call();
  auto& same = pending_[submission->key()];
  const bool running =
      round_ && std::any_of(round_->running.begin(), round_->running.end(),
                            [&](const auto& each) { return each->key() == submission->key(); });
  if (!call.name.empty() && (!same.empty() || running))
    throw ArgumentError("an asynchronous " + call.kind + " with the name '" + call.name +
                        "' is pending: wait for it first, or give this one another name");
  same.push_back({submitted_++, std::move(submission)});
  ++count_;
}

// Progress ----------------------------------------------------------------------------------------

bool Queue::progress(bool waits) {
  if (!round_ && !begin(waits)) return false;
  const auto progress = round_->task->progress();
  if (progress == Progress::done) {
    end_round();
    return true;
  }
  const auto now = Clock::now();
  if (progress == Progress::moved)
    waited_ = {};
  else
    waited_ += std::min<Clock::duration>(now - looked_, kSuspended);
  looked_ = now;
  if (now - checked_ > kCheckEvery) {
    checked_ = now;
    check();
  }
  return progress == Progress::moved;
}

/// Begins a round if there is a reason to.
bool Queue::begin(bool waits) {
  if (count_ == 0) return false;
  int slot = last_ == kNone ? first_ : slots_[last_].next;
  if (slot != kNone && !has(slots_[slot].keys)) slot = kNone;
  const bool news = stated_ != submitted_;
  if (slot == kNone && (!waits || (!news && Clock::now() < resumes_))) return false;
  start(slot);
  return true;
}

void Queue::start(int slot) {
  round_ = std::make_unique<Round>(lane_, call_);
  round_->operation.about = description();
  round_->task = std::make_unique<Task<>>(meet(round_->operation, slot));
  waited_ = {};
  looked_ = checked_ = Clock::now();
}

void Queue::drain() {
  draining_ = true;
  Several several;
  Wait wait(lane_.settings().spin);
  do {
    if (!round_) start(kNone);
    in_common_ = true;  // unless a negotiation says otherwise
    while (round_) {
      if (progress(true))
        wait.moved();
      else
        wait.pause(several);
      if (wait.due()) lane_.control().hooks().check_signals();
    }
  } while (in_common_ && !gave_up_);
}

bool Queue::has(const Keys& keys) const {
  if (count_ < keys.size()) return false;
  Met met;
  return std::all_of(keys.begin(), keys.end(), [&](const auto& key) {
    const auto found = pending_.find(key);
    return found != pending_.end() && met[key]++ < found->second.size();
  });
}

/// Some of what is pending, in words.
std::string Queue::description() const {
  std::string text;
  std::size_t shown = 0;
  for (const auto& [key, same] : pending_) {
    if (shown++ == kShown) return text + ", ...";
    text += (shown == 1 ? ": " : ", ") + same.front().call->call().text();
  }
  return text;
}

/// Throws in the task what should end the wait: a failure, a deadline.
void Queue::check() {
  try {
    round_->watch.check(std::chrono::duration<double>(waited_).count());
    require_members();
  } catch (...) {
    if (round_->task->interrupt(std::current_exception()) == Progress::done) end_round();
  }
}

/// Ends a wait for ranks that do not come any more. That concerns this set alone.
void Queue::require_members() {
  if (draining_) return;  // those that have left are here again
  const auto missing =
      lane_.control().missing(lane_.members(), lane_.number(), round_->operation.sequence);
  if (!missing) return;
  const auto why = *missing + "\nwhile this rank was in " + round_->watch.standing().text;
  refused_ = "asynchronous calls cannot be made any more, because " + why;
  throw RankFailedError(why);
}

bool Queue::leave() {
  if (!lane_.control().ending()) left_ = false;
  if (left_ || !idle() || !lane_.control().ending()) return left_;
  lane_.control().announce_leaving(lane_.number(), lane_.sequence(), lane_.members());
  return left_ = true;
}

void Queue::end_round() {
  const auto round = std::move(round_);
  auto& control = lane_.control();
  std::exception_ptr error;
  try {
    round->task->result();
    round->watch.end();
    return;
  } catch (const StalledError& stalled) {
    error = std::current_exception();
    control.announce_failure({lane_.number(), round->operation.sequence, stalled.what()}, true);
  } catch (const std::exception& other) {
    error = std::current_exception();
    auto standing = round->watch.standing();
    standing.text = std::string(other.what()) + " in " + standing.text;
    if (refused_.empty()) control.announce_failure(standing, false);
  }
  // It ends all calls, and messages of those that ran may still be under way.
  gave_up_ = true;
  round->operation.give_up();
  for (const auto& call : round->running) call->finish(error, true);
  fail(error);
}

void Queue::fail(const std::exception_ptr& error) {
  count_ = 0;
  for (auto& [key, same] : std::exchange(pending_, {}))
    for (const auto& each : same) each.call->finish(error);
}

// Rounds ------------------------------------------------------------------------------------------

/// One round. `slot`: which one this rank goes into, if any.
Task<> Queue::meet(Operation& operation, int slot) {
  if (!open_) {
    open_ = true;
    if (blocking_.board()) co_await share_memory(lane_, operation, blocking_.neighbours());
  }
  lane_.next(operation);
  const auto mine =
      slot == kNone ? kNegotiates : fingerprint(slots_[slot].keys) + operation.sequence;
  const Extremes said = co_await lane_.compare(operation, mine);
  if (slot != kNone && said.equal())
    co_await run(operation, slot);
  else
    co_await negotiate(operation);
}

Task<> Queue::negotiate(Operation& operation) {
  stated_ = submitted_;
  std::vector<Stated> mine;
  for (const auto& [number, call] : in_order()) mine.push_back({call->key(), call->fingerprint()});
  const auto texts = co_await tell_texts(lane_, operation, text_of(mine));
  std::vector<std::vector<Stated>> statements;
  for (const auto& text : texts) statements.push_back(statement_of(text));
  const auto found = matches(statements);
  in_common_ = !found.empty();
  pause_ = found.empty() ? std::clamp<Clock::duration>(2 * pause_, kFirstPause, kLongestPause)
                         : Clock::duration();
  resumes_ = Clock::now() + pause_;
  const auto groups = grouped(found);
  for (const auto& match : found) {
    if (!match.equal) co_await refuse(operation, match.key);
  }
  for (const auto& keys : groups) {
    const int slot = slot_of(keys);
    co_await run(operation, slot);
  }
}

/// Ends a call that the ranks describe differently: with an error on all, and the others go on.
Task<> Queue::refuse(Operation& operation, std::string key) {
  const Keys keys{key};
  const auto call = take(keys).front();
  const auto texts = co_await tell_texts(lane_, operation, call->call().text());
  std::vector<Described> described;
  for (const auto& text : texts) described.push_back({text, {}});
  const auto message = mismatch_message(described, lane_.members(), lane_.set());
  call->finish(std::make_exception_ptr(MismatchError(message)));
}

Task<> Queue::run(Operation& operation, int slot) {
  (last_ == kNone ? first_ : slots_[last_].next) = slot;
  last_ = slot;
  round_->running = take(slots_[slot].keys);
  const auto& calls = round_->running;
  if (calls[0]->fusable()) {
    std::vector<Piece> pieces;
    for (const auto& call : calls) pieces.push_back(call->fusable()->piece);
    auto& route = routes_.choose(Collective::allreduce, std::string_view());
    co_await route.allreduce(operation, pieces, calls[0]->fusable()->reduction, std::string_view());
  } else {
    co_await calls[0]->begin(routes_, operation);
  }
  operation.release();
  for (const auto& call : std::exchange(round_->running, {})) call->finish();
}

// What is pending, and slots ----------------------------------------------------------------------

std::vector<Queue::Pending> Queue::in_order() const {
  std::vector<Pending> all;
  for (const auto& [key, same] : pending_) all.insert(all.end(), same.begin(), same.end());
  std::sort(all.begin(), all.end(),
            [](const auto& a, const auto& b) { return a.number < b.number; });
  return all;
}

/// Of the calls of this rank with these keys.
std::uint64_t Queue::fingerprint(const Keys& keys) const {
  Met met;
  std::uint64_t all = 1;
  for (const auto& key : keys)
    all = all * 0x9e3779b97f4a7c15 + pending_.at(key)[met[key]++].call->fingerprint();
  return all;
}

Queue::Calls Queue::take(const Keys& keys) {
  Calls taken;
  for (const auto& key : keys) {
    const auto same = pending_.find(key);
    taken.push_back(std::move(same->second.front().call));
    same->second.pop_front();
    if (same->second.empty()) pending_.erase(same);
    --count_;
  }
  return taken;
}

/// What is pending everywhere, as the keys of slots.
std::vector<Queue::Keys> Queue::grouped(std::span<const Match> found) const {
  std::vector<Keys> groups;
  Met met;
  const Fusable* first = nullptr;  // of the last group, if more can be fused with it
  std::size_t bytes = 0;
  for (const auto& [key, equal_everywhere] : found) {
    const auto& next = pending_.at(key)[met[key]++].call->fusable();
    if (!equal_everywhere) continue;
    const std::size_t more = next ? next->piece.input.bytes : 0;
    if (!first || !next || !equal(first->reduction, next->reduction) ||
        bytes + more > fusion_bytes_) {
      groups.emplace_back();
      first = next ? &*next : nullptr;
      bytes = 0;
    }
    groups.back().push_back(key);
    bytes += more;
  }
  return groups;
}

/// All ranks know the same slots, as all run the same ones.
int Queue::slot_of(const Keys& keys) {
  if (const auto found = numbers_.find(keys); found != numbers_.end()) return found->second;
  if (slots_.size() == kMostSlots) {
    slots_.clear();
    numbers_.clear();
    first_ = last_ = kNone;
  }
  const int number = static_cast<int>(slots_.size());
  slots_.push_back({keys, kNone});
  numbers_[keys] = number;
  return number;
}

}  // namespace ronde
