#include "engine/queue.h"

#include <algorithm>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "collective/exchange.h"
#include "collective/mismatch.h"
#include "collective/network.h"
#include "collective/share.h"
#include "collective/wait.h"
#include "core/error.h"
#include "core/text.h"

namespace ronde {
namespace {

using namespace std::chrono_literals;

constexpr auto kFirstPause = 50us, kLongestPause = 2000us;
constexpr std::size_t kShown = 5;  // pending calls that a report names

constexpr std::uint64_t kNegotiates = 0;  // in place of the fingerprint of a slot

bool equal(const Reduction& a, const Reduction& b) {
  return a.dtype == b.dtype && a.op == b.op && a.prescale == b.prescale && a.divisor == b.divisor &&
         a.postscale == b.postscale;
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
  if (joining_ != Joining::off)
    throw Error(submission->call().text() +
                " was submitted while another thread of this rank is in ronde.join on the same "
                "process set, which says that this rank makes no more calls until all have joined");
  submitted_.add(std::move(submission));
}

// Progress ----------------------------------------------------------------------------------------

bool Queue::moves() const {
  return std::any_of(tracks_.begin(), tracks_.end(),
                     [](const auto& each) { return bool(each->round); });
}

bool Queue::progress(bool waits) {
  bool moved = false;
  for (std::uint64_t i = 0; i < tracks_.size(); ++i) {
    auto& oldest = track(rounds_ + i);
    if (oldest.round) moved |= progress(oldest);
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
    const bool always = draining_ == Drain::on || joining_ == Joining::on;
    if (draining_ == Drain::over || (!always && submitted_.count() == 0)) return false;
    if (!always) {
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
  // Others may never come to a round that this rank has begun only because it has joined.
  const bool for_others = joining_ == Joining::on || submitted_.count() == 0;
  if (for_others && round.running.empty() && draining_ == Drain::off) round.waited = {};
  try {
    round.watch.check(seconds(round.waited));
    require_members(track);
  } catch (...) {
    if (round.task->interrupt(std::current_exception()) == Progress::done) end_round(track);
  }
}

/// Ends a wait for ranks that do not come any more. That concerns this set alone. (Where this rank
/// is ending too, all will come: the last thing that ranks do is to negotiate. In join the blocking
/// call finds out.)
void Queue::require_members(Track& track) {
  auto& control = track.lane.control();
  if (control.ending() || joining_ == Joining::on) return;
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
    for (const auto& call : round->running) call->finish(error, true);
  }
  end_pending(error);
}

void Queue::end_pending(const std::exception_ptr& error) {
  for (const auto& calls : std::exchange(due_, {}))
    for (const auto& call : calls) call->finish(error);
  for (const auto& call : submitted_.take_all()) call->finish(error);
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
    commit(*slot);
  } else {
    co_await negotiate(track, operation);
  }
  co_await know_link(track, operation);
  meeting_ = false;
  if (!due_.empty()) co_await run(track, operation, take_due());
}

Task<> Queue::negotiate(Track& track, Operation& operation) {
  stated_ = submitted_.so_far();
  const auto now = Clock::now();
  std::vector<Stated> mine;
  for (const auto& call : submitted_.in_order()) {
    mine.push_back(
        {call.submission->key(), call.submission->fingerprint(), seconds(now - call.counted)});
  }
  const char own = draining_ == Drain::on ? kDrains : static_cast<char>(average_);
  std::string statement = own + text_of(mine);
  const auto texts = co_await exchange_texts(track.lane, operation, std::move(statement));
  std::vector<std::vector<Stated>> statements;
  std::string states;
  std::vector<bool> joined;
  for (const auto& text : texts) {
    states += text.at(0);
    joined.push_back(text[0] == kBySize || text[0] == kByContributing);
    statements.push_back(statement_of(std::string_view(text).substr(1)));
  }
  const auto found = matches(statements, joined);
  // No rank may stop to drain, or be through with its join, before all do: the others would wait
  // for it.
  const bool all_drain = states.find_first_not_of(kDrains) == std::string::npos;
  const bool all_joined = std::ranges::find(joined, false) == joined.end();
  if (found.empty() && all_drain) draining_ = Drain::over;
  if (found.empty() && all_joined) joining_ = Joining::over;
  joined_rounds_ += average_ != Join::no;
  end_overdue(statements, joined);
  pause_ = found.empty() ? std::clamp<Clock::duration>(2 * pause_, kFirstPause, kLongestPause)
                         : Clock::duration();
  resumes_ = Clock::now() + pause_;

  const auto calls = co_await matched(track, operation, found, states);
  Calls equal;
  for (std::size_t i = 0; i < found.size(); ++i) {
    if (!found[i].equal) {
      co_await refuse(track, operation, calls[i]);
    } else if (calls[i]) {
      equal.push_back(calls[i]);
    }
  }
  commit(equal);
}

/// Ends a call that does not run.
void Queue::drop(const std::shared_ptr<Submission>& call, const std::exception_ptr& error) {
  const Calls alone{call};
  submitted_.begin(alone);
  submitted_.end(alone);
  call->finish(error);
}

/// Ends a call that the ranks describe differently: with an error on all, and the others go on.
/// `call`: null where this rank has joined.
Task<> Queue::refuse(Track& track, Operation& operation, std::shared_ptr<Submission> call) {
  Calls alone;
  if (call) alone.push_back(call);
  submitted_.begin(alone);
  track.round->running = alone;
  std::string own = call ? call->call().text() : "join";
  const auto texts = co_await exchange_texts(track.lane, operation, std::move(own));
  std::vector<Described> described;
  for (const auto& text : texts) described.push_back({text, {}});
  const auto message = mismatch_message(described, track.lane.members(), track.lane.set());
  track.round->running.clear();
  submitted_.end(alone);
  if (call) call->finish(std::make_exception_ptr(MismatchError(message)));
}

/// Before anything runs that goes by what the link costs: nothing else may be under way, and all
/// lanes go by the same.
Task<> Queue::know_link(Track& track, Operation& operation) {
  std::size_t most = 0;
  for (const auto& calls : due_) most = std::max(most, bytes_of(calls));
  auto& lane = track.lane;
  if (!lane.board() || lane.across()) co_await ronde::know_link(lane, operation, most);
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
  if (!track.open) co_await open(track, operation);
  operation.agreed = true;
  operation.joined = calls[0]->joined();
  const auto& fusable = calls[0]->fusable();
  if (fusable) {
    std::vector<Piece> pieces;
    for (const auto& call : calls) pieces.push_back(call->fusable()->piece);
    auto& route = track.routes.choose(Collective::allreduce, std::string_view());
    co_await route.allreduce(operation, pieces, fusable->reduction, std::string_view());
  } else {
    co_await calls[0]->begin(track.routes, operation);
  }
  operation.release();
  track.round->running.clear();
  submitted_.end(calls);
  for (const auto& call : calls) call->finish();
}

std::vector<Calls> Queue::grouped(const Calls& calls) const {
  std::vector<Calls> groups;
  const Submission* first = nullptr;  // of the last group, if more can be fused with it
  std::size_t bytes = 0;
  for (const auto& call : calls) {
    const auto& next = call->fusable();
    const std::size_t more = next ? call->bytes() : 0;
    if (!first || !next || !equal(first->fusable()->reduction, next->reduction) ||
        first->joined().divisor != call->joined().divisor || bytes + more > fusion_bytes_) {
      groups.emplace_back();
      first = next ? call.get() : nullptr;
      bytes = 0;
    }
    groups.back().push_back(call);
    bytes += more;
  }
  return groups;
}

// Missing calls -----------------------------------------------------------------------------------

/// What some ranks have pending and others do not: warns of it once, after a while. What has waited
/// longest ends after too long, on all ranks that have it, with what else the same ranks lack. For
/// the rest time counts anew: a rank that gives up now may have been late for it.
void Queue::end_overdue(std::span<const std::vector<Stated>> statements,
                        const std::vector<bool>& joined) {
  const auto& lane = tracks_[0]->lane;
  const double timeout = lane.settings().stall_timeout, warning = lane.settings().stall_warning;
  const auto all = unmatched(statements, joined);
  if (all.empty()) return;
  const auto& longest = std::max_element(all.begin(), all.end(), [](const auto& a, const auto& b) {
                          return a.second.waited < b.second.waited;
                        })->second;
  const bool stalled = timeout > 0 && longest.waited > timeout;
  const auto now = Clock::now();
  std::string late;
  std::size_t shown = 0;
  for (const auto& [name, found] : all) {
    const auto stated = found.calls[lane.rank()];
    if (stated <= found.everywhere) continue;
    auto& pending = submitted_.find(name)->pending;
    auto& first = pending[found.everywhere];
    const double waited = seconds(now - first.since);
    const auto text = missing(first.submission->call().text(), found);
    for (auto i = found.everywhere; stalled && i < stated; ++i) pending[i].counted = now;
    if (stalled && found.waited > timeout && found.ranks == longest.ranks) {
      end(name, found.everywhere, stated,
          "waited " + seconds_text(waited) + " for " + text + "\n(RONDE_STALL_TIMEOUT is " +
              seconds_text(timeout) + ")");
    } else if (warning > 0 && waited > warning && !std::exchange(first.warned, true)) {
      if (++shown <= kShown) late += "\n  " + text + ", for " + seconds_text(waited);
    }
  }
  if (late.empty()) return;
  auto& control = lane.control();
  control.hooks().warn("rank " + std::to_string(control.rank()) +
                       " waits for asynchronous calls that other ranks have not submitted:" + late +
                       (shown > kShown ? "\n  ..." : ""));
}

/// Some of the calls that are pending with a key.
void Queue::end(const std::string& key, std::size_t from, std::size_t to, const std::string& why) {
  const auto same = submitted_.find(key);
  Calls calls;
  for (auto i = from; i < to; ++i) calls.push_back(same->pending[i].submission);
  submitted_.begin(calls);
  submitted_.end(calls);
  for (const auto& call : calls) call->finish(std::make_exception_ptr(StalledError(why)));
}

std::string Queue::missing(const std::string& call, const Unmatched& found) const {
  const auto& members = tracks_[0]->lane.members();
  std::string lacking;
  for (const auto rank : found.ranks) {
    lacking += (lacking.empty() ? "" : ", ") + std::to_string(members[rank]);
  }
  return call + ": missing on rank " + lacking;
}

}  // namespace ronde
