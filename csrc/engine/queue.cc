#include "engine/queue.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "collective/network.h"
#include "collective/share.h"
#include "collective/wait.h"
#include "core/error.h"
#include "node/shared_round.h"
#include "trace/clock.h"
#include "trace/timeline.h"

namespace ronde {
namespace {

// Between machines, of the calls of a slot. It begins when all of them have come, and the wire
// would be idle until then; that it has fewer is not noticed there.
constexpr std::size_t kMostBetween = 4 << 20;

constexpr std::uint64_t kNone = 0;  // in place of the fingerprint of a slot

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
      fusion_bytes_(blocking.board() && !blocking.across() ? fusion_bytes
                                                           : std::min(fusion_bytes, kMostBetween)) {
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
  if (is_joining())
    throw Error(submission->call().text() +
                " was submitted while another thread of this rank is in ronde.join on the same "
                "process set, which says that this rank makes no more calls until all have joined");
  submitted_.add(submission);
  note(*submission);
}

/// What is pending, in what others see of this rank, as far as there is room.
void Queue::note(Submission& submission) {
  const auto& call = submission.call();
  if (submission.submitted == 0)
    submission.submitted = recorder().timeline().on() ? exact_time() : coarse_time();
  submission.entry = recorder().submit({call.kind, call.name, call.bytes(), submission.submitted});
  submission.entry.stands_at(submission.site());
}

// Progress ----------------------------------------------------------------------------------------

bool Queue::moves() const {
  return std::any_of(tracks_.begin(), tracks_.end(),
                     [](const auto& each) { return bool(each->round); });
}

Patience Queue::patience() const {
  Patience most;
  for (const auto& each : tracks_)
    if (each->round) most = most.with(each->round->task->patience());
  return most;
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
  if (gave_up_ || agreeing_ || next.round) return false;
  std::vector<Calls> slots;
  if (due_.empty()) {
    const bool always = draining_ == Drain::on || joining_ == Joining::on;
    if (draining_ == Drain::over || (!always && submitted_.count() == 0)) return false;
    if (!always) {
      slots = slots_.next(kMostSlots);
      const bool news = stated_ != submitted_.so_far();
      if (slots.empty() && (!waits || (!news && Clock::now() < resumes_))) return false;
    }
    agreeing_ = true;
  }
  ++rounds_;
  next.round = std::make_unique<Round>(next.lane, call_);
  auto& round = *next.round;
  round.operation.about = [this, &next] { return description(next); };
  round.looked = round.checked = Clock::now();
  round.task = std::make_unique<Task<>>(agreeing_ ? agree(next, round.operation, std::move(slots))
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
  if (for_others && round.running.empty() && due_.empty() && draining_ == Drain::off)
    round.waited = {};
  const int peer = round.task->peer();
  for (const auto& call : round.running)
    call->entry.waits(peer < 0 ? peer : track.lane.members()[peer]);
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
    track->lane.abandon_nccl();
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

/// In the first round, on all lanes: which of them share memory must be known before calls are
/// spread over them.
Task<> Queue::open(Operation& operation) {
  open_ = true;
  if (!shares_memory_) co_return;
  for (auto& track : tracks_) {
    co_await share_memory(track->lane, operation, neighbours_);
  }
}

/// A round in which the ranks find out what runs. `slots`: those that this rank goes for.
Task<> Queue::agree(Track& track, Operation& operation, std::vector<Calls> slots) {
  if (!open_) co_await open(operation);
  Alike alike;
  co_await find_alike(track, operation, slots, alike);
  recorder().count(Counter::slots_replayed, alike.slots);
  if (alike.slots == 0) co_await negotiate(track, operation);
  for (std::size_t i = 0; i < alike.slots; ++i) commit(slots[i]);
  if (alike.first_is_reduced) {
    const auto calls = take_due();
    const auto span = begun(track, calls);
    track.lane.takes(operation, Counter::bytes_in_shared_memory, bytes_of(calls));
    finish(calls);
  }
  co_await know_link(track, operation);
  agreeing_ = false;
  if (!due_.empty()) co_await run(track, operation, take_due());
}

/// Of the first slot, if it is one group of calls in the memory of this machine.
Queue::Short Queue::short_part(const Track& track, const std::vector<Calls>& slots) const {
  Short part;
  const auto& lane = track.lane;
  if (slots.empty() || !lane.board() || lane.across() || !slots[0][0]->fusable()) return part;
  const auto& calls = slots[0];
  const auto& reduction = calls[0]->fusable()->reduction;
  if (reduction.adaptive || calls[0]->scheduled() || !SharedRound::fits(kWords, bytes_of(calls)) ||
      grouped(calls).size() > 1)
    return part;
  for (const auto& call : calls) {
    const auto& piece = call->fusable()->piece;
    if (on_gpu(piece.input)) return {};
    part.pieces.push_back(piece);
  }
  part.reduction = reduction;
  return part;
}

/// Which of the slots, from the first, all ranks go for.
Task<> Queue::find_alike(Track& track, Operation& operation, const std::vector<Calls>& slots,
                         Alike& alike) {
  const Short first = short_part(track, slots);
  const bool is_short = !first.pieces.empty();
  std::array<std::uint64_t, kWords> mine{is_short};
  for (std::size_t i = 0; i < kMostSlots; ++i) {
    mine[1 + 2 * i] = i < slots.size() ? fingerprint(slots[i]) : kNone;
    mine[2 + 2 * i] = ~mine[1 + 2 * i];
  }
  // Where the least of all ranks is that of this one both times, it is the greatest too.
  const auto least = operation.zeros<std::uint64_t>(mine.size());
  std::ranges::copy(mine, least.begin());
  co_await track.lane.agree_on_least(operation, least, Pieces(first.pieces), first.reduction);
  const auto differs = std::mismatch(mine.begin() + 1, mine.end(), least.begin() + 1).first;
  const auto same = static_cast<std::size_t>(differs - (mine.begin() + 1)) / 2;
  alike.slots = std::min(slots.size(), same);
  alike.first_is_reduced = alike.slots > 0 && is_short && least[0] == mine[0];
}

/// Before anything runs that goes by what the link costs: all lanes go by the same, and a rank that
/// measured it in a round could not know whether the others still do so in theirs.
Task<> Queue::know_link(Track& track, Operation& operation) {
  auto& lane = track.lane;
  const bool in_memory = std::all_of(tracks_.begin(), tracks_.end(), [](const auto& each) {
    return each->lane.board() && !each->lane.across();
  });
  std::size_t most = 0;
  for (const auto& calls : due_) {
    if (!in_memory || calls[0]->scheduled()) most = std::max(most, bytes_of(calls));
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
  const auto span = begun(track, calls);
  operation.agreed = true;
  operation.joined = calls[0]->joined();
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
  finish(calls);
}

/// They run from now on.
Span Queue::begun(const Track& track, const Calls& calls) const {
  for (const auto& call : calls) call->entry.begin();
  const auto fused =
      calls.size() == 1 ? calls[0]->call().name : "of " + std::to_string(calls.size()) + " arrays";
  return Span(track.lane.recorder(), calls[0]->call().kind,
              {.bytes = known_bytes(calls), .of = fused});
}

void Queue::finish(const Calls& calls) {
  submitted_.end(calls);
  count(calls);  // before anybody who waits for them goes on
  for (const auto& call : calls) call->finish();
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

/// Where NCCL connects the ranks, arrays of GPUs go another way than others.
bool Queue::alike(const Fusable& one, const Fusable& other) const {
  const bool apart =
      tracks_[0]->lane.nccl() && on_gpu(one.piece.input) != on_gpu(other.piece.input);
  return one.reduction == other.reduction && !apart;
}

std::vector<Calls> Queue::grouped(const Calls& calls) const {
  std::vector<Calls> groups;
  const Submission* first = nullptr;  // of the last group, if more can be fused with it
  std::size_t bytes = 0;
  for (const auto& call : calls) {
    const auto& next = call->fusable();
    const std::size_t more = next ? call->bytes() : 0;
    if (!first || !next || !alike(*first->fusable(), *next) ||
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

}  // namespace ronde
