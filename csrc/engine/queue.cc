#include "engine/queue.h"

#include <algorithm>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "collective/exchange.h"
#include "collective/mismatch.h"
#include "collective/network.h"
#include "collective/share.h"
#include "collective/stall_table.h"
#include "collective/wait.h"
#include "core/error.h"
#include "core/text.h"
#include "trace/clock.h"
#include "trace/timeline.h"

namespace ronde {
namespace {

using namespace std::chrono_literals;

constexpr auto kFirstPause = 50us, kLongestPause = 2000us;
// After so many seconds the ranks also state where a call was submitted.
constexpr double kWorthASite = 0.1;
constexpr std::size_t kShown = 5;  // pending calls that a report names

constexpr std::uint64_t kNegotiates = 0;  // in place of the fingerprint of a slot

bool equal(const Reduction& a, const Reduction& b) {
  return a.dtype == b.dtype && a.op == b.op && a.prescale == b.prescale && a.divisor == b.divisor &&
         a.postscale == b.postscale && a.adaptive == b.adaptive;
}

double seconds(std::chrono::steady_clock::duration time) {
  return std::chrono::duration<double>(time).count();
}

std::uint64_t fingerprint(const Calls& calls) {
  std::uint64_t all = 1;
  for (const auto& call : calls) all = all * 0x9e3779b97f4a7c15 + call->fingerprint();
  return all;
}

std::size_t bytes_of(const Calls& calls) {
  if (!calls[0]->fusable()) return calls[0]->bytes();
  std::size_t bytes = 0;
  for (const auto& call : calls) bytes += call->bytes();
  return bytes;
}

/// As far as the calls say it.
std::size_t known_bytes(const Calls& calls) {
  std::size_t bytes = 0;
  for (const auto& call : calls) bytes += call->call().bytes();
  return bytes;
}

}  // namespace

Queue::Queue(const Lane& blocking, std::size_t fusion_bytes)
    : shares_memory_(blocking.board()),
      neighbours_(blocking.neighbours()),
      fusion_bytes_(fusion_bytes) {
  call_.kind = "asynchronous calls";
  const auto plans = std::make_shared<Plans>(blocking.settings());
  int number = 0;
  for (auto& track : tracks_)
    track = std::make_unique<Track>(blocking, Lane::Asynchronous{number++, plans});
}

Queue::~Queue() {
  if (!idle()) give_up(std::make_exception_ptr(Error("the queue was closed")));
  for (const auto& track : tracks_)
    if (gave_up_ || track->lane.control().failed()) track->lane.keep_until_exit();
}

void Queue::submit(std::shared_ptr<Submission> submission) {
  if (!refused_.empty()) throw Error(refused_);
  submitted_.add(submission);
  const auto& call = submission->call();
  submission->entry = recorder().submit(call.kind, call.name, call.bytes());
  submission->entry.stands_at(submission->site());
  submission->submitted = recorder().timeline().on() ? exact_time() : coarse_time();
}

// Progress ----------------------------------------------------------------------------------------

bool Queue::moves() const {
  return std::any_of(tracks_.begin(), tracks_.end(),
                     [](const auto& each) { return bool(each->round); });
}

bool Queue::progress(bool waits) {
  bool moved = false;
  for (std::uint64_t i = 0; i < tracks_.size(); ++i) {
    auto& next = track(rounds_ + i);  // the oldest first
    if (!next.round) continue;
    // Ranks that wait for the rounds before may come to this one later.
    if (moved) next.round->waited = {};
    moved |= progress(next);
  }
  for (std::size_t i = 0; i < tracks_.size() && begin(waits); ++i) {
    progress(track(rounds_ - 1));
    moved = true;
  }
  return moved;
}

/// Begins a round if there is a reason to.
bool Queue::begin(bool waits) {
  auto& next = track(rounds_);
  if (gave_up_ || meeting_ || next.round) return false;
  std::optional<Calls> slot;
  if (due_.empty()) {
    if (draining_ == Drain::over || (draining_ == Drain::off && submitted_.count() == 0))
      return false;
    if (draining_ == Drain::off) {
      slot = slots_.next();
      const bool news = stated_ != submitted_.so_far();
      if (!slot && (!waits || (!news && Clock::now() < resumes_))) return false;
    }
    meeting_ = true;
  }
  ++rounds_;
  next.round = std::make_unique<Round>(next.lane, call_);
  auto& round = *next.round;
  round.operation.about = [this, &next] { return description(next); };
  round.looked = round.checked = Clock::now();
  round.task = std::make_unique<Task<>>(meeting_ ? meet(next, round.operation, std::move(slot))
                                                 : run(next, round.operation, take_due()));
  return true;
}

bool Queue::progress(Track& track) {
  auto& round = *track.round;
  const auto progress = round.task->progress();
  if (progress == Progress::done) {
    end_round(track);
    return true;
  }
  const auto now = Clock::now();
  if (progress == Progress::moved)
    round.waited = {};
  else
    round.waited += std::min<Clock::duration>(now - round.looked, Wait::kSuspended);
  round.looked = now;
  if (now - round.checked > Wait::kCheckEvery) {
    round.checked = now;
    check(track);
  }
  return progress == Progress::moved;
}

/// Some of what is running and pending, in words.
std::string Queue::description(const Track& track) const {
  Calls calls = track.round->running;
  if (calls.empty()) {
    for (const auto& call : submitted_.in_order()) calls.push_back(call.submission);
  }
  std::string text;
  std::size_t shown = 0;
  for (const auto& call : calls) {
    if (shown++ == kShown) return text + ", ...";
    text += (shown == 1 ? ": " : ", ") + call->call().text();
  }
  return text;
}

/// Throws in the task what should end the wait: a failure, a deadline.
void Queue::check(Track& track) {
  auto& round = *track.round;
  try {
    round.watch.check(seconds(round.waited));
    require_members(track);
  } catch (...) {
    if (round.task->interrupt(std::current_exception()) == Progress::done) end_round(track);
  }
}

/// Ends a wait for ranks that do not come any more. That concerns this set alone. (Where this rank
/// is ending too, all will come: the last thing that ranks do is to negotiate.)
void Queue::require_members(Track& track) {
  auto& control = track.lane.control();
  if (control.ending()) return;
  const auto& round = *track.round;
  const auto missing =
      control.missing(track.lane.members(), track.lane.number(), round.operation.sequence);
  if (!missing) return;
  const auto why = *missing + "\nwhile this rank was in " + round.watch.standing().text;
  refused_ = "asynchronous calls cannot be made any more, because " + why;
  throw RankFailedError(why);
}

bool Queue::leave() {
  if (left_ || !idle()) return left_;
  for (const auto& track : tracks_) {
    const auto& lane = track->lane;
    lane.control().announce_leaving(lane.number(), lane.sequence(), lane.members());
  }
  return left_ = true;
}

void Queue::end_round(Track& track) {
  auto& round = *track.round;
  std::exception_ptr error;
  Standing standing{track.lane.number(), round.operation.sequence, {}};
  bool stalled = false;
  try {
    round.task->result();
    round.watch.end();
    track.round.reset();
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
  auto& control = track.lane.control();
  give_up(error);
  if (!refused_.empty()) return;
  try {
    control.announce_failure(standing, stalled);
  } catch (const std::exception&) {
    // Who waits for this rank then finds out by the deadline.
  }
}

/// Messages of the rounds may still be under way.
void Queue::give_up(const std::exception_ptr& error) {
  gave_up_ = true;
  for (auto& track : tracks_) {
    const auto round = std::move(track->round);
    if (!round) continue;
    round->operation.give_up();
    fail(round->running, error, true);
  }
  end_pending(error);
}

void Queue::end_pending(const std::exception_ptr& error) {
  for (const auto& calls : std::exchange(due_, {})) fail(calls, error);
  fail(submitted_.take_all(), error);
}

void Queue::close(const std::exception_ptr& error) {
  if (refused_.empty()) refused_ = "asynchronous calls cannot be made any more on this process set";
  if (moves())
    give_up(error);
  else
    end_pending(error);
}

// Rounds ------------------------------------------------------------------------------------------

/// The first round on a lane.
Task<> Queue::open(Track& track, Operation& operation) {
  track.open = true;
  if (shares_memory_) co_await share_memory(track.lane, operation, neighbours_);
}

/// A round in which the ranks find out what runs. `slot`: the calls that this rank goes for, if it
/// knows any.
Task<> Queue::meet(Track& track, Operation& operation, std::optional<Calls> slot) {
  if (!track.open) co_await open(track, operation);
  track.lane.next(operation);
  const auto mine = slot ? fingerprint(*slot) + operation.sequence : kNegotiates;
  const Extremes said = co_await track.lane.compare(operation, mine);
  if (slot && said.equal()) {
    recorder().count(Counter::slots_replayed);
    commit(*slot);
  } else {
    co_await negotiate(track, operation);
  }
  co_await know_link(track, operation);
  meeting_ = false;
  if (!due_.empty()) co_await run(track, operation, take_due());
}

Task<> Queue::negotiate(Track& track, Operation& operation) {
  recorder().count(Counter::negotiations);
  const Span span(track.lane.recorder(), "negotiate");
  stated_ = submitted_.so_far();
  const auto now = Clock::now();
  std::vector<Stated> mine;
  for (const auto& call : submitted_.in_order()) {
    Stated stated{.key = call.submission->key(), .fingerprint = call.submission->fingerprint()};
    stated.waited = seconds(now - call.counted);
    if (stated.waited > kWorthASite) stated.site = call.submission->site();
    mine.push_back(std::move(stated));
  }
  // No rank may stop to drain before all do: the others would wait for it.
  std::string statement = (draining_ == Drain::on ? "d" : "-") + text_of(mine);
  const auto texts = co_await exchange_texts(track.lane, operation, std::move(statement));
  std::vector<std::vector<Stated>> statements;
  bool all_drain = true;
  for (const auto& text : texts) {
    all_drain &= text.at(0) == 'd';
    statements.push_back(statement_of(std::string_view(text).substr(1)));
  }
  const auto found = matches(statements);
  if (all_drain && found.empty()) draining_ = Drain::over;
  end_overdue(statements);
  pause_ = found.empty() ? std::clamp<Clock::duration>(2 * pause_, kFirstPause, kLongestPause)
                         : Clock::duration();
  resumes_ = Clock::now() + pause_;

  // All of them before the first is done with: those of a key are known by their number.
  Calls equal, different;
  std::unordered_map<std::string_view, std::size_t> met;
  for (const auto& match : found) {
    const auto& call = submitted_.find(match.key)->pending[met[match.key]++].submission;
    (match.equal ? equal : different).push_back(call);
  }
  for (const auto& call : different) {
    co_await refuse(track, operation, call);
  }
  commit(equal);
}

/// Ends a call that the ranks describe differently: with an error on all, and the others go on.
Task<> Queue::refuse(Track& track, Operation& operation, std::shared_ptr<Submission> call) {
  const Calls alone{call};
  submitted_.begin(alone);
  track.round->running = alone;
  const auto texts = co_await exchange_texts(track.lane, operation, call->call().text());
  const auto sites = co_await exchange_texts(track.lane, operation, call->site());
  std::vector<Described> described;
  for (int rank = 0; rank < track.lane.size(); ++rank)
    described.push_back({texts[rank], sites[rank]});
  const auto message = mismatch_message(described, track.lane.members(), track.lane.set());
  track.round->running.clear();
  submitted_.end(alone);
  fail(alone, std::make_exception_ptr(MismatchError(message)));
}

/// Before anything runs that goes by what the link costs: all lanes go by the same, and a rank that
/// measured it in a round could not know whether the others still do so in theirs.
Task<> Queue::know_link(Track& track, Operation& operation) {
  auto& lane = track.lane;
  std::size_t most = 0;
  for (const auto& calls : due_) {
    if (!lane.board() || lane.across() || calls[0]->scheduled())
      most = std::max(most, bytes_of(calls));
  }
  co_await ronde::know_link(lane, operation, most);
}

/// In slots. (Those of a slot of last time may have other types and operations now.)
void Queue::commit(const Calls& calls) {
  for (auto& group : grouped(calls)) {
    slots_.note(group, submitted_);
    submitted_.begin(group);
    due_.push_back(std::move(group));
  }
}

/// As a round begins: others may before this one runs.
Calls Queue::take_due() {
  Calls calls = std::move(due_.front());
  due_.pop_front();
  return calls;
}

Task<> Queue::run(Track& track, Operation& operation, Calls calls) {
  track.round->running = calls;
  for (const auto& call : calls) call->entry.begin();
  const auto fused =
      calls.size() == 1 ? calls[0]->call().name : "of " + std::to_string(calls.size()) + " arrays";
  const Span span(track.lane.recorder(), calls[0]->call().kind,
                  {.bytes = known_bytes(calls), .of = fused});
  if (!track.open) co_await open(track, operation);
  operation.agreed = true;
  const auto& fusable = calls[0]->fusable();
  if (fusable) {
    std::vector<Piece> pieces;
    for (const auto& call : calls) pieces.push_back(call->fusable()->piece);
    auto& route = track.routes.choose(Collective::allreduce, std::string_view());
    co_await route.allreduce(operation, pieces, fusable->reduction, std::string_view());
  } else {
    co_await calls[0]->task(track.routes, operation);
  }
  operation.release();
  track.round->running.clear();
  submitted_.end(calls);
  for (const auto& call : calls) call->finish();
  count(calls);
}

/// They have completed, as one slot.
void Queue::count(const Calls& calls) {
  recorder().count(Counter::slots);
  recorder().count(Counter::slot_calls, calls.size());
  recorder().count(Counter::asynchronous_calls, calls.size());
  if (calls[0]->fusable()) recorder().count(Counter::slot_bytes, known_bytes(calls));
  auto& timeline = recorder().timeline();
  if (!timeline.on()) return;
  for (const auto& call : calls) {
    const auto name = call->call().kind + " " + call->call().name;
    timeline.add_overlapping({name, call->submitted, exact_time(), call->call().bytes(), {}});
  }
  timeline.flush_at_times();
}

/// They end with an error. `touched`: messages may still touch their memory.
void Queue::fail(const Calls& calls, const std::exception_ptr& error, bool touched) {
  recorder().count(Counter::failed_calls, calls.size());
  for (const auto& call : calls) call->finish(error, touched);
}

std::vector<Calls> Queue::grouped(const Calls& calls) const {
  std::vector<Calls> groups;
  const Fusable* first = nullptr;  // of the last group, if more can be fused with it
  std::size_t bytes = 0;
  for (const auto& call : calls) {
    const auto& next = call->fusable();
    const std::size_t more = next ? call->bytes() : 0;
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

// Missing calls -----------------------------------------------------------------------------------

/// What some ranks have pending and others do not: the first rank warns of it, after a while. What
/// has waited longest ends after too long, on all ranks that have it, with what else the same ranks
/// lack. For the rest time counts anew: a rank that gives up now may have been late for it.
void Queue::end_overdue(std::span<const std::vector<Stated>> statements) {
  const auto& lane = tracks_[0]->lane;
  const double timeout = lane.settings().stall_timeout;
  const auto all = unmatched(statements);
  std::erase_if(warned_, [&](const auto& key) { return !all.contains(key); });
  if (all.empty()) return;
  warn(all, statements);
  const auto& longest = std::max_element(all.begin(), all.end(), [](const auto& a, const auto& b) {
                          return a.second.waited < b.second.waited;
                        })->second;
  if (timeout <= 0 || longest.waited <= timeout) return;
  lane.control().hooks().stalled();
  const auto now = Clock::now();
  for (const auto& [key, ranks] : all) {
    if (ranks.is_lacked_by(lane.rank())) continue;
    const auto stated = ranks.calls[lane.rank()];
    auto& pending = submitted_.find(key)->pending;
    if (ranks.waited > timeout && ranks.same_ranks_lack(longest)) {
      const auto& first = pending[ranks.everywhere];
      end(key, ranks.everywhere, stated,
          "waited " + seconds_text(seconds(now - first.since)) +
              " for an asynchronous call that not all ranks have submitted: " +
              first.submission->call().text() +
              missing_table(key, ranks, statements, lane.members()) + "\n(RONDE_STALL_TIMEOUT is " +
              seconds_text(timeout) + ")");
    } else {
      for (auto i = ranks.everywhere; i < stated; ++i) pending[i].counted = now;
    }
  }
}

/// Once of each call that has waited for long.
void Queue::warn(const std::map<std::string, Unmatched>& all,
                 std::span<const std::vector<Stated>> statements) {
  const auto& lane = tracks_[0]->lane;
  const double warning = lane.settings().stall_warning;
  std::string late;
  std::size_t shown = 0;
  for (const auto& [key, ranks] : all) {
    if (warning <= 0 || ranks.waited <= warning || !warned_.insert(key).second) continue;
    if (++shown > kShown) continue;
    const bool mine = !ranks.is_lacked_by(lane.rank());
    const auto own = mine ? submitted_.find(key)->pending[ranks.everywhere].submission : nullptr;
    late += "\n" + (own ? own->call().text() : printable(key)) +
            missing_table(key, ranks, statements, lane.members());
  }
  if (late.empty()) return;
  recorder().count(Counter::stall_warnings);
  if (lane.rank() != 0) return;
  lane.control().hooks().warn("asynchronous calls have waited that not all ranks have submitted:" +
                              late + (shown > kShown ? "\n..." : ""));
}

/// Some of the calls that are pending with a key.
void Queue::end(const std::string& key, std::size_t from, std::size_t to, const std::string& why) {
  const auto& pending = submitted_.find(key)->pending;
  Calls calls;
  for (auto i = from; i < to; ++i) calls.push_back(pending[i].submission);
  submitted_.begin(calls);
  submitted_.end(calls);
  fail(calls, std::make_exception_ptr(StalledError(why)));
}

}  // namespace ronde
