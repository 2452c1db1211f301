#include "engine/queue.h"

#include <algorithm>
#include <utility>

#include "collective/exchange.h"
#include "collective/mismatch.h"
#include "collective/share.h"
#include "collective/wait.h"
#include "core/error.h"

namespace ronde {
namespace {

using namespace std::chrono_literals;

constexpr auto kFirstPause = 50us, kLongestPause = 2000us;
constexpr std::size_t kShown = 5;  // pending calls that a report names

constexpr std::uint64_t kNegotiates = 0;  // in place of the fingerprint of a slot

bool equal(const Reduction& a, const Reduction& b) {
  return a.dtype == b.dtype && a.op == b.op && a.prescale == b.prescale && a.divisor == b.divisor &&
         a.postscale == b.postscale && a.adaptive == b.adaptive;
}

/// How often each key has been met so far.
using Met = std::unordered_map<std::string_view, std::size_t>;

}  // namespace

Queue::Queue(const Lane& blocking, std::size_t fusion_bytes)
    : shares_memory_(blocking.board()),
      neighbours_(blocking.neighbours()),
      lane_(blocking, Lane::Asynchronous()),
      routes_(lane_),
      fusion_bytes_(fusion_bytes) {
  call_.kind = "asynchronous calls";
}

Queue::~Queue() {
  if (round_) give_up(std::move(round_), std::make_exception_ptr(Error("the queue was closed")));
  if (gave_up_ || lane_.control().failed()) lane_.keep_until_exit();
}

void Queue::submit(std::shared_ptr<Submission> submission) {
  if (!refused_.empty()) throw Error(refused_);
  const auto& call = submission->call();
  const auto& key = submission->key();
  const bool running = round_ && std::any_of(round_->running.begin(), round_->running.end(),
                                             [&](const auto& each) { return each->key() == key; });
  if (!call.name.empty() && (running || pending_.contains(key)))
    throw ArgumentError("an asynchronous " + call.kind + " with the name '" + call.name +
                        "' is pending: wait for it first, or give this one another name");
  pending_[key].push_back({submitted_++, std::move(submission)});
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
    waited_ += std::min<Clock::duration>(now - looked_, Wait::kSuspended);
  looked_ = now;
  if (now - checked_ > Wait::kCheckEvery) {
    checked_ = now;
    check();
  }
  return progress == Progress::moved;
}

/// Begins a round if there is a reason to.
bool Queue::begin(bool waits) {
  if (gave_up_) return false;
  if (draining_) {
    start(kNone);
    return true;
  }
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
  round_->operation.about = [this] { return description(); };
  round_->task = std::make_unique<Task<>>(meet(round_->operation, slot));
  waited_ = {};
  looked_ = checked_ = Clock::now();
}

bool Queue::has(const Keys& keys) const {
  if (count_ < keys.size()) return false;
  Met met;
  return std::all_of(keys.begin(), keys.end(), [&](const auto& key) {
    const auto found = pending_.find(key);
    return found != pending_.end() && met[key]++ < found->second.size();
  });
}

/// Some of what is running and pending, in words.
std::string Queue::description() const {
  Calls calls = round_ ? round_->running : Calls();
  for (const auto& [key, same] : pending_) calls.push_back(same.front().call);
  std::string text;
  std::size_t shown = 0;
  for (const auto& call : calls) {
    if (shown++ == kShown) return text + ", ...";
    text += (shown == 1 ? ": " : ", ") + call->call().text();
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

/// Ends a wait for ranks that do not come any more. That concerns this set alone. (Where this rank
/// is ending too, all will come: the last thing that ranks do is to negotiate.)
void Queue::require_members() {
  auto& control = lane_.control();
  if (control.ending()) return;
  const auto missing = control.missing(lane_.members(), lane_.number(), round_->operation.sequence);
  if (!missing) return;
  const auto why = *missing + "\nwhile this rank was in " + round_->watch.standing().text;
  refused_ = "asynchronous calls cannot be made any more, because " + why;
  throw RankFailedError(why);
}

bool Queue::leave() {
  auto& control = lane_.control();
  if (!left_ && idle()) {
    control.announce_leaving(lane_.number(), lane_.sequence(), lane_.members());
    left_ = true;
  }
  return left_;
}

void Queue::end_round() {
  auto& round = *round_;
  std::exception_ptr error;
  Standing standing{lane_.number(), round.operation.sequence, {}};
  bool stalled = false;
  try {
    round.task->result();
    round.watch.end();
    round_.reset();
    return;
  } catch (const StalledError& other) {
    error = std::current_exception();
    standing.text = other.what();
    stalled = true;
  } catch (const std::exception& other) {
    error = std::current_exception();
    standing.text = other.what();
  }
  if (!stalled) standing.text += " in " + round.watch.standing().text;
  give_up(std::move(round_), error);
  if (!refused_.empty()) return;
  try {
    lane_.control().announce_failure(standing, stalled);
  } catch (const std::exception&) {
    // Who waits for this rank then finds out by the deadline.
  }
}

/// Messages of the round may still be under way.
void Queue::give_up(std::unique_ptr<Round> round, const std::exception_ptr& error) {
  gave_up_ = true;
  round->operation.give_up();
  for (const auto& call : round->running) call->finish(error, true);
  end_pending(error);
}

void Queue::end_pending(const std::exception_ptr& error) {
  count_ = 0;
  for (auto& [key, same] : std::exchange(pending_, {}))
    for (const auto& each : same) each.call->finish(error);
}

void Queue::close(const std::exception_ptr& error) {
  if (refused_.empty()) refused_ = "asynchronous calls cannot be made any more on this process set";
  if (round_) {
    round_->task->interrupt(error);
    give_up(std::move(round_), error);
  } else {
    end_pending(error);
  }
}

// Rounds ------------------------------------------------------------------------------------------

/// One round. `slot`: which one this rank goes into, if any.
Task<> Queue::meet(Operation& operation, int slot) {
  if (!open_) {
    open_ = true;
    if (shares_memory_) co_await share_memory(lane_, operation, neighbours_);
  }
  lane_.next(operation);
  const auto calls = slot == kNone ? Calls() : calls_of(slots_[slot].keys);
  const auto mine = slot == kNone ? kNegotiates : fingerprint(calls) + operation.sequence;
  const Extremes said = co_await lane_.compare(operation, mine);
  if (slot != kNone && said.equal()) {
    co_await run_all(operation, calls);
  } else {
    co_await negotiate(operation);
  }
}

Task<> Queue::negotiate(Operation& operation) {
  stated_ = submitted_;
  std::vector<Stated> mine;
  for (const auto& [number, call] : in_order()) mine.push_back({call->key(), call->fingerprint()});
  // No rank may stop to drain before all do: the others would wait for it.
  std::string statement = (draining_ ? "d" : "-") + text_of(mine);
  const auto texts = co_await exchange_texts(lane_, operation, std::move(statement));
  std::vector<std::vector<Stated>> statements;
  bool all_drain = true;
  for (const auto& text : texts) {
    all_drain &= text.at(0) == 'd';
    statements.push_back(statement_of(std::string_view(text).substr(1)));
  }
  const auto found = matches(statements);
  if (all_drain && found.empty()) draining_ = false;
  if (found.empty())
    report_missing(statements);
  else
    in_vain_ = {};
  pause_ = found.empty() ? std::clamp<Clock::duration>(2 * pause_, kFirstPause, kLongestPause)
                         : Clock::duration();
  resumes_ = Clock::now() + pause_;

  // All of them before the first is done with: those of a key are known by their number.
  Calls equal, different;
  Met met;
  for (const auto& match : found) {
    const auto& call = pending_.at(match.key)[met[match.key]++].call;
    (match.equal ? equal : different).push_back(call);
  }
  for (const auto& call : different) {
    co_await refuse(operation, call);
  }
  co_await run_all(operation, equal);
}

/// Nothing was pending everywhere. Says so, once, after a while of that; and ends it in the end.
void Queue::report_missing(std::span<const std::vector<Stated>> statements) {
  const auto now = Clock::now();
  if (in_vain_ == InVain() || in_vain_.submitted != submitted_)
    in_vain_ = {.since = now, .submitted = submitted_, .warned = false};
  const std::chrono::duration<double> waited = now - in_vain_.since;
  const auto& settings = lane_.settings();
  const bool stalled = settings.stall_timeout > 0 && waited.count() > settings.stall_timeout;
  const bool late = settings.stall_warning > 0 && waited.count() > settings.stall_warning;
  if (count_ == 0 || !(stalled || (late && !in_vain_.warned))) return;
  in_vain_.warned = true;
  const auto text =
      "waited " + std::to_string(static_cast<int>(waited.count())) +
      " s for asynchronous calls that other ranks have not submitted:" + missing_calls(statements);
  if (stalled) throw StalledError(text);
  lane_.control().hooks().warn("rank " + std::to_string(lane_.control().rank()) + " has " + text);
}

/// The first pending calls of this rank, each with the ranks that have it not.
std::string Queue::missing_calls(std::span<const std::vector<Stated>> statements) const {
  std::string text;
  std::size_t shown = 0;
  for (const auto& [number, call] : in_order()) {
    std::string ranks;
    for (int rank = 0; rank < lane_.size(); ++rank) {
      const auto& theirs = statements[rank];
      if (std::any_of(theirs.begin(), theirs.end(),
                      [&](const auto& each) { return each.key == call->key(); }))
        continue;
      ranks += (ranks.empty() ? "" : ", ") + std::to_string(lane_.members()[rank]);
    }
    if (ranks.empty()) continue;
    if (shown++ == kShown) return text + "\n  ...";
    text += "\n  " + call->call().text() + ": missing on rank " + ranks;
  }
  return text;
}

/// Ends a call that the ranks describe differently: with an error on all, and the others go on.
Task<> Queue::refuse(Operation& operation, std::shared_ptr<Submission> call) {
  const Calls alone{call};
  begin_running(alone);
  const auto texts = co_await exchange_texts(lane_, operation, call->call().text());
  std::vector<Described> described;
  for (const auto& text : texts) described.push_back({text, {}});
  const auto message = mismatch_message(described, lane_.members(), lane_.set());
  round_->running.clear();
  call->finish(std::make_exception_ptr(MismatchError(message)));
}

/// In slots. (Those of a slot of last time may have other types and operations now.)
Task<> Queue::run_all(Operation& operation, Calls calls) {
  const auto groups = grouped(calls);
  for (const auto& group : groups) {
    co_await run(operation, group);
  }
}

Task<> Queue::run(Operation& operation, Calls calls) {
  note(calls);
  begin_running(calls);
  if (calls[0]->fusable()) {
    std::vector<Piece> pieces;
    for (const auto& call : calls) pieces.push_back(call->fusable()->piece);
    auto& route = routes_.choose(Collective::allreduce, std::string_view());
    co_await route.allreduce(operation, pieces, calls[0]->fusable()->reduction, std::string_view());
  } else {
    co_await calls[0]->begin(routes_, operation);
  }
  operation.release();
  round_->running.clear();
  for (const auto& call : calls) call->finish();
}

/// From pending to running.
void Queue::begin_running(const Calls& calls) {
  round_->running = calls;
  for (const auto& call : calls) {
    const auto same = pending_.find(call->key());
    auto& all = same->second;
    all.erase(
        std::find_if(all.begin(), all.end(), [&](const auto& each) { return each.call == call; }));
    if (all.empty()) pending_.erase(same);
    --count_;
  }
}

// What is pending, and slots ----------------------------------------------------------------------

std::vector<Queue::Pending> Queue::in_order() const {
  std::vector<Pending> all;
  for (const auto& [key, same] : pending_) all.insert(all.end(), same.begin(), same.end());
  std::sort(all.begin(), all.end(),
            [](const auto& a, const auto& b) { return a.number < b.number; });
  return all;
}

std::uint64_t Queue::fingerprint(const Calls& calls) {
  std::uint64_t all = 1;
  for (const auto& call : calls) all = all * 0x9e3779b97f4a7c15 + call->fingerprint();
  return all;
}

Queue::Calls Queue::calls_of(const Keys& keys) const {
  Calls calls;
  Met met;
  for (const auto& key : keys) calls.push_back(pending_.at(key)[met[key]++].call);
  return calls;
}

/// In slots.
std::vector<Queue::Calls> Queue::grouped(const Calls& calls) const {
  std::vector<Calls> groups;
  const Fusable* first = nullptr;  // of the last group, if more can be fused with it
  std::size_t bytes = 0;
  for (const auto& call : calls) {
    const auto& next = call->fusable();
    const std::size_t more = next ? next->piece.input.bytes : 0;
    if (!first || !next || !equal(first->reduction, next->reduction) ||
        bytes + more > fusion_bytes_) {
      groups.emplace_back();
      first = next ? &*next : nullptr;
      bytes = 0;
    }
    groups.back().push_back(call);
    bytes += more;
  }
  return groups;
}

/// Remembers that these calls came after those of the last slot. All ranks have the same slots, as
/// all run the same ones.
void Queue::note(const Calls& calls) {
  Keys keys;
  for (const auto& call : calls) keys.push_back(call->key());
  auto found = numbers_.find(keys);
  if (found == numbers_.end()) {
    if (slots_.size() == kMostSlots) {
      slots_.clear();
      numbers_.clear();
      first_ = last_ = kNone;
    }
    slots_.push_back({keys, kNone});
    found = numbers_.emplace(keys, static_cast<int>(slots_.size()) - 1).first;
  }
  (last_ == kNone ? first_ : slots_[last_].next) = found->second;
  last_ = found->second;
}

}  // namespace ronde
