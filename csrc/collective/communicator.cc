#include "collective/communicator.h"

#include <algorithm>
#include <chrono>
#include <new>
#include <stdexcept>
#include <thread>
#include <utility>

#include "collective/memory.h"
#include "collective/mismatch.h"
#include "collective/select.h"
#include "collective/shared.h"
#include "collective/wait.h"
#include "collective/watch.h"
#include "core/error.h"
#include "core/keep.h"
#include "core/text.h"

namespace ronde {
namespace {

// Seconds for which a call may wait once its set is being closed. Where all members are in it, it
// makes progress sooner, and completes.
constexpr double kPatience = 0.5;

constexpr std::size_t kTextBytes = 64 << 10;  // of a call in words, at most

// Messages on their way at once, at least: enough to keep a link busy while one is being reduced.
constexpr std::size_t kInFlight = 4;

// A vector of that length makes the ranks find out what the link costs. For a shorter one an
// ordinary Ethernet is assumed, whatever is known by then: the same call gives the same bits before
// and after.
constexpr std::size_t kWorthMeasuring = 4 << 10;
constexpr Link kEthernet{.alpha = 20e-6, .overhead = 5e-6, .beta = 8e-9, .gamma = 2e-10};

}  // namespace

Communicator::Communicator(std::shared_ptr<Control> control, std::shared_ptr<Transport> transport,
                           int set, std::vector<int> members, Settings settings)
    : control_(std::move(control)),
      transport_(std::move(transport)),
      set_(set),
      members_(std::move(members)),
      settings_(std::move(settings)),
      explains_(control_->hooks().log != nullptr) {}

Communicator::~Communicator() {
  // Requests of a failed call may still be under way, and MPI may still write where they point.
  if (failed()) {
    keep_until_exit(transport_);
    keep_until_exit(across_);
  }
  delete refused_.load();
}

// What every call has around it -------------------------------------------------------------------

/// Runs `body` when this rank's turn has come, and so that whatever ends it becomes known to the
/// other ranks and leaves no memory that a late message may still touch.
void Communicator::guarded(const Call& call, FunctionRef<void()> body) {
  take_turn(call);
  const std::unique_ptr<Communicator, void (*)(Communicator*)> turn(
      this, [](Communicator* self) { self->end_turn(); });
  require_usable();
  temporaries_.clear();
  try {
    body();
  } catch (const MismatchError&) {
    throw;  // all ranks alike, and nothing is under way
  } catch (const StalledError& error) {
    give_up(call, error.what(), true);
    throw;
  } catch (const std::bad_alloc&) {
    give_up(call, "out of memory", false);
    throw;
  } catch (const std::exception& error) {
    give_up(call, error.what(), false);
    throw;
  }
}

/// The same, after phase 0: `body` is what a collective does once the ranks agree.
void Communicator::perform(const Call& call, Collective collective, std::string_view algorithm,
                           FunctionRef<void()> body) {
  require_algorithm(collective, size(), settings_, algorithm);
  return guarded(call, [&] {
    begin(call);
    body();
  });
}

/// Phase 0, unless the user does without.
void Communicator::begin(const Call& call) {
  if (settings_.check) {
    agree(call);
  } else {
    ++sequence_;
  }
}

void Communicator::take_turn(const Call& call) {
  // A thread gets here in a call of its own by a hook: a handler of signals, say.
  if (is_inside() || (set_ != 0 && control_->ends_here()))
    throw Error(
        call.text() +
        " was called, perhaps by a handler of signals or warnings, while the same thread was "
        "in a call of the same process set or in shutdown: neither call could complete");
  for (int tries = 1; !begin_turn(); ++tries) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    if (tries % 20 == 0) control_->hooks().check_signals();
  }
  owner_.store(std::this_thread::get_id(), std::memory_order_relaxed);
}

bool Communicator::begin_turn() {
  if (const auto* why = refused_.load()) throw Error(*why);
  if (!may_begin() || !mutex_.try_lock()) return false;
  // That may have changed before the lock was taken.
  if (may_begin() && !refused_.load()) return true;
  end_turn();
  return false;
}

void Communicator::end_turn() {
  owner_.store(std::thread::id(), std::memory_order_relaxed);
  mutex_.unlock();
  try {
    if (control_->ending()) leave();
  } catch (...) {
    // Who waits for this rank then finds out by the deadline.
  }
}

/// Once a thread has begun to end Ronde on this rank, it alone makes calls, with all ranks.
bool Communicator::may_begin() const {
  return !control_->ending() || (set_ == 0 && control_->ends_here());
}

/// Reports to the other members that this rank makes no further call. If it is in one now, it
/// reports that when the call has completed.
void Communicator::leave() {
  if (set_ == 0) return;
  const std::unique_lock turn(mutex_, std::try_to_lock);
  if (turn.owns_lock()) control_->announce_leaving(set_, sequence_, members_);
}

void Communicator::refuse(const std::string& why) {
  const std::string* none = nullptr;
  auto text = std::make_unique<const std::string>(why);
  if (refused_.compare_exchange_strong(none, text.get())) (void)text.release();
}

bool Communicator::close(const std::string& why) {
  if (is_inside()) throw Error("a call cannot remove the process set that it is made on");
  refuse(why);
  for (int tries = 1; !mutex_.try_lock(); ++tries) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    if (tries % 20 == 0) control_->hooks().check_signals();
  }
  mutex_.unlock();
  return !given_up_;
}

/// Ends a wait for missing ranks. That concerns this set alone: the job continues.
void Communicator::require_members(const Watch& watch, double elapsed) {
  const auto missing = control_->missing(members_, set_, sequence_);
  if (missing) {
    const auto why = *missing + "\nwhile this rank was in " + watch.standing().text;
    refuse("this process set cannot be used any more, because " + why);
    given_up_ = true;
    throw RankFailedError(why);
  }
  const auto* why = refused_.load();
  if (!why || elapsed < kPatience) return;
  given_up_ = true;
  throw Error(*why + "\nwhile this rank was in " + watch.standing().text);
}

void Communicator::require_usable() const {
  if (control_->failed())
    throw Error("Ronde cannot be used any more, because " + failure() +
                "\ncall ronde.shutdown() and ronde.init() to start again");
}

void Communicator::give_up(const Call& call, const std::string& reason, bool stalled) {
  for (auto& temporary : temporaries_) keep_until_exit(std::move(temporary));
  if (given_up_) return;
  const Watch watch(*control_, settings_, members_, set_, sequence_, call, true);
  auto standing = watch.standing();
  // A stall names the call already.
  standing.text = stalled ? reason : reason + " in " + standing.text;
  control_->announce_failure(standing, stalled);
}

/// Moves `work` to its end. If that fails, messages may still be under way, so the work is kept.
void Communicator::drive(const std::shared_ptr<Work>& work, const Call& call, bool patient) {
  Watch watch(*control_, settings_, members_, set_, sequence_, call, patient);
  Wait wait(settings_.spin);
  try {
    while (true) {
      const auto progress = work->progress();
      if (progress == Progress::done) return;
      if (progress == Progress::moved) {
        if (wait.moved()) watch.check(0);
        continue;
      }
      wait.pause(*work);
      if (wait.due()) {
        watch.check(wait.elapsed());
        require_members(watch, wait.elapsed());
      }
    }
  } catch (...) {
    work->abandon();
    keep_until_exit(work);
    throw;
  }
}

/// Memory for the call under way.
Bytes Communicator::allocate(std::size_t bytes) {
  Bytes memory(bytes);
  temporaries_.push_back(memory.owner());
  return memory;
}

// Phase 0 -----------------------------------------------------------------------------------------

/// `extent`: what must be equal on all ranks whatever the call says, so that none reads or writes
/// where it must not.
std::uint64_t Communicator::fingerprint(const Call& call, std::uint64_t extent) const {
  constexpr std::uint64_t kSpread = 0x9e3779b97f4a7c15;
  return call.fingerprint() + sequence_ + kSpread * extent;
}

/// The ranks of a machine agree in shared memory, and the machines over the network.
void Communicator::agree(const Call& call, bool patient) {
  ++sequence_;
  auto said = Extremes::of(fingerprint(call));
  if (board_) {
    said = agree_in_memory(
        call, 0,
        [&](std::uint64_t mine) { return std::make_unique<SharedAgreement>(*board_, mine); },
        patient);
  }
  if (!board_ || across_) {
    agree_by_messages(call, said, patient);
  } else if (!said.equal()) {
    raise_mismatch(call);
  }
}

/// The ranks that messages go to: those of this local rank where each machine reduces in shared
/// memory.
Transport& Communicator::outward() const { return across_ ? *across_ : *transport_; }

/// `said`: the fingerprints of this rank, or of those of its machine.
void Communicator::agree_by_messages(const Call& call, const Extremes& said, bool patient,
                                     std::shared_ptr<Contributions> contributions) {
  if (outward().size() == 1) return;
  const auto agreement =
      std::make_shared<Agreement>(outward(), kAgreementTag, said, std::move(contributions));
  drive(agreement, call, patient);
  if (!agreement->agreed()) raise_mismatch(call);
}

/// Whether a collective is done in shared memory, with its phase 0.
bool Communicator::through_memory(Collective collective, std::string_view algorithm) const {
  return board_ && !across_ && chosen_freely(collective, algorithm);
}

/// Whether the user has chosen no algorithm for schedules.
bool Communicator::chosen_freely(Collective collective, std::string_view algorithm) const {
  return algorithm.empty() && (settings_.algorithm.empty() ||
                               !settings_.algorithm.contains(std::string(name_of(collective))));
}

/// A shared collective of the ranks of this machine. Returns their fingerprints.
Extremes Communicator::agree_in_memory(const Call& call, std::uint64_t extent, MakeShared make,
                                       bool patient) {
  const auto work = std::make_shared<SharedWork>(board_, make(fingerprint(call, extent)));
  drive(work, call, patient);
  if (explains_ && work->said().equal()) explain_memory(call, work->route());
  return work->said();
}

/// Phase 0 in shared memory and, for a collective, all that follows.
void Communicator::share(const Call& call, std::uint64_t extent, MakeShared make) {
  ++sequence_;
  if (!agree_in_memory(call, extent, make).equal()) raise_mismatch(call);
}

bool Communicator::share_memory(std::span<const int> machines) {
  // The ranks of this machine and, one from each machine, those of this local rank.
  const auto machine_of = [&](int member) { return machines.empty() ? 0 : machines[member]; };
  std::map<int, std::vector<int>> by_machine;
  for (int member = 0; member < size(); ++member) by_machine[machine_of(member)].push_back(member);
  const auto& here = by_machine.at(machine_of(rank()));
  const auto place =
      static_cast<std::size_t>(std::find(here.begin(), here.end(), rank()) - here.begin());
  std::vector<int> same_place;
  for (const auto& [machine, members] : by_machine) {
    if (members.size() != here.size())
      throw ArgumentError("the machines have different numbers of ranks");
    same_place.push_back(members[place]);
  }

  Call call;
  call.kind = "sharing of memory";
  guarded(call, [&] {
    agree(call);
    const int ranks = static_cast<int>(here.size());
    const std::size_t bytes = Board::bytes_for(ranks);
    std::shared_ptr<Segment> segment;
    if (place == 0) {
      try {
        segment = Segment::create(bytes);
      } catch (const UnavailableError& error) {
        control_->hooks().warn(error.what());
      }
    }
    const auto address = exchange_texts(call, segment ? segment->address() : "")[here[0]];
    if (place != 0 && !address.empty()) segment = Segment::open(address, bytes);

    // A path may lead to the memory of another job. Only who truly shares it sees the signatures,
    // whose word holds something of this job that no other has: an address and the time.
    const auto words = allocate_zeros<std::uint64_t>(size());
    words[rank()] = reinterpret_cast<std::uintptr_t>(control_.get()) +
                    static_cast<std::uint64_t>(Wait::Clock::now().time_since_epoch().count());
    pass_round(call, Chunks::even(words.size_bytes(), size()), buffer_of(words));
    const auto word = words[here[0]];
    const auto board =
        segment ? std::make_shared<Board>(segment, static_cast<int>(place), ranks) : nullptr;
    if (board) board->sign(word);
    agree(call);
    const auto seen = allocate_zeros<std::uint8_t>(size());
    seen[rank()] = board && board->all_signed(word);
    pass_round(call, Chunks::even(seen.size_bytes(), size()), buffer_of(seen));
    if (std::find(seen.begin(), seen.end(), 0) != seen.end()) return;
    board_ = board;
    if (same_place.size() > 1) across_ = std::make_shared<Group>(transport_, same_place);
  });
  return board_ != nullptr;
}

void Communicator::raise_mismatch(const Call& call) {
  // Before anything else: when the others have this rank's text, they may call it in a process set.
  if (control_->ends_here()) control_->go_on();
  const auto calls = exchange_texts(call, call.text());
  const auto places = exchange_texts(call, control_->hooks().where());
  std::vector<Described> described;
  for (int rank = 0; rank < size(); ++rank) described.push_back({calls[rank], places[rank]});
  throw MismatchError(mismatch_message(described, members_, set_));
}

std::vector<std::string> Communicator::exchange_texts(const Call& call, const std::string& mine) {
  const auto text = cut(mine, kTextBytes);
  const auto lengths = allocate_zeros<std::size_t>(size());
  lengths[rank()] = text.size();
  pass_round(call, Chunks::even(lengths.size_bytes(), size()), buffer_of(lengths));

  const Chunks chunks = Chunks::of(lengths);
  const Bytes all = allocate(chunks.total());
  copy(chunk_of(all.buffer(), chunks[rank()]),
       {reinterpret_cast<const std::byte*>(text.data()), text.size()});
  pass_round(call, chunks, all.buffer());

  std::vector<std::string> texts;
  for (int rank = 0; rank < size(); ++rank) {
    const auto chunk = chunk_of(all.buffer(), chunks[rank]);
    texts.emplace_back(reinterpret_cast<const char*>(chunk.data), chunk.bytes);
  }
  return texts;
}

/// An allgather by ring whatever the settings: the ranks have just found that they differ in
/// something.
void Communicator::pass_round(const Call& call, const Chunks& chunks, Buffer data) {
  const Layout layout{.rank = rank(), .chunks = chunks, .inputs = {}};
  const auto& ring = find_algorithm(Collective::allgather, "ring");
  drive(std::make_shared<Execution>(*transport_, std::make_shared<Schedule>(ring.build(layout)),
                                    Operands{{}, data}, Element{}, kTextTag, Depth{},
                                    "exchange of descriptions"),
        call);
}

void Communicator::barrier(const Call& call) {
  guarded(call, [&] { agree(call); });
}

void Communicator::end(const Call& call, std::span<Communicator* const> sets) {
  if (is_inside() ||
      std::any_of(sets.begin(), sets.end(), [](auto* set) { return set->is_inside(); }))
    throw Error("a call cannot be made inside another: " + call.text());
  control_->begin_end(call.text());
  try {
    for (auto* set : sets) set->leave();
    guarded(call, [&] { agree(call, true); });
  } catch (...) {
    // Other threads of this rank would wait for ever for an end that does not come.
    if (control_->ends_here()) control_->go_on();
    throw;
  }
}

// The choice of algorithms ------------------------------------------------------------------------

const Communicator::Plan& Communicator::plan(Collective collective, const Layout& layout,
                                             const Element& element, std::string_view named) {
  PlanKey key{collective,    element.bytes, layout.root,
              layout.chunks, layout.inputs, std::string(named)};
  if (const auto found = plans_.find(key); found != plans_.end()) return found->second;
  if (plans_.size() >= kMaxPlans) plans_.clear();
  const Link& link = link_for(layout.chunks.total() * element.bytes);
  const auto& algorithm = select(collective, layout, element.bytes, link, settings_, named);
  const auto elements = std::max<std::size_t>(settings_.segment_bytes / element.bytes, 1);
  auto schedule = std::make_shared<Schedule>(segmented(algorithm.build(layout), elements));
  return plans_.emplace(std::move(key), Plan{&algorithm, std::move(schedule)}).first->second;
}

/// Measures the link before the first collective that is worth it, after phase 0.
void Communicator::know_link(const Call& call, std::size_t bytes) {
  if (is_worth_measuring(bytes)) keep_link(measured(call));
}

/// The same, with a phase 0 of its own.
void Communicator::agree_and_know_link(const Call& call, std::size_t bytes) {
  if (!is_worth_measuring(bytes)) return;
  agree(call);
  know_link(call, bytes);
}

/// By what the algorithm for so many bytes is chosen.
const Link& Communicator::link_for(std::size_t bytes) const {
  return is_long(bytes) ? link_ : kEthernet;
}

bool Communicator::is_long(std::size_t bytes) { return bytes >= kWorthMeasuring; }

bool Communicator::is_worth_measuring(std::size_t bytes) const {
  return !link_known_ && size() > 1 && is_long(bytes);
}

void Communicator::know_link() {
  Call call;
  call.kind = "measurement of the link, if it is not known";
  guarded(call, [&] {
    agree(call);
    know_link(call, kWorthMeasuring);
  });
}

/// Bytes that are on their way from a rank at once, at most: some segments, and on a long link what
/// it carries while a message and an answer travel.
std::size_t Communicator::in_flight() const {
  const auto travelling = static_cast<std::size_t>(2 * link_.alpha / link_.beta);
  return std::max(kInFlight * settings_.segment_bytes, travelling);
}

void Communicator::run(Collective collective, const Layout& layout, Operands operands,
                       Element element, const Call& call, std::string_view named) {
  // The ranks see layouts of different lengths in an alltoall, and only there.
  if (collective != Collective::alltoall) know_link(call, layout.chunks.total() * element.bytes);
  run_on(*transport_, collective, layout, operands, element, call, named);
}

void Communicator::run_on(Transport& transport, Collective collective, const Layout& layout,
                          Operands operands, Element element, const Call& call,
                          std::string_view named) {
  const Plan& chosen = plan(collective, layout, element, named);
  const auto& [algorithm, schedule] = chosen;
  if (explains_)
    explain_plan(call, collective, chosen, layout.chunks.total() * element.bytes, named);
  if (schedule->actions.empty()) return;  // a lone rank, or nothing to move
  const Depth depth{settings_.window, in_flight()};
  drive(std::make_shared<Execution>(
            transport, schedule, operands, element, data_tag(), depth,
            std::string(name_of(collective)) + " by " + std::string(algorithm->name)),
        call);
}

}  // namespace ronde
