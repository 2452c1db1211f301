#include "collective/communicator.h"

#include <algorithm>
#include <limits>
#include <new>
#include <utility>

#include "collective/compressed.h"
#include "collective/drive.h"
#include "collective/share.h"
#include "collective/watch.h"
#include "core/error.h"

namespace ronde {
namespace {

Task<> agree_on_link(Lane& lane, Operation& operation) {
  co_await lane.agree(operation);
  co_await know_link(lane, operation, std::numeric_limits<std::size_t>::max());
}

/// The outlines of a call that no other can take part in.
constexpr auto for_all_ranks = [] { return std::vector<Outline>(); };

}  // namespace

Communicator::Communicator(std::shared_ptr<Control> control, std::shared_ptr<Transport> transport,
                           int set, std::vector<int> members, Settings settings)
    : lane_(std::move(control), std::move(transport), set, std::move(members), std::move(settings)),
      turns_(lane_),
      routes_(lane_) {}

Communicator::~Communicator() {
  // Requests of a failed call may still be under way, and MPI may still write where they point.
  if (failed()) lane_.keep_until_exit();
}

/// Runs the task that `begin` makes when this rank's turn has come. If other ranks have joined, it
/// makes it once more, and those take part.
void Communicator::run(Operation& operation, FunctionRef<Task<>()> begin,
                       FunctionRef<std::vector<Outline>()> outlines) {
  const auto turn = turns_.take(operation.call);
  guarded(operation, [&](Watch& watch) {
    const auto some = attempt(begin(), operation, watch);
    if (!some) return;
    operation.release();
    complete(described(lane_, operation, *some, {operation.call, outlines()}), operation, watch);
    operation.joined = some->counts();
    complete(begin(), operation, watch);
  });
  count();
}

/// So that whatever ends it becomes known to the other ranks and leaves no memory that a late
/// message may still touch.
void Communicator::guarded(Operation& operation, FunctionRef<void(Watch&)> body) {
  require_usable();
  const auto& call = operation.call;
  operation.entry = lane_.recorder().begin(call.kind, call.name, call.bytes());
  const Span span(lane_.recorder(), call.kind, {.bytes = call.bytes(), .of = call.name});
  Watch watch(lane_, operation);
  try {
    body(watch);
    watch.end();
    operation.entry.end(CallState::done);
  } catch (const MismatchError&) {
    lane_.recorder().count(Counter::failed_calls);
    watch.end();
    throw;  // all ranks alike, and nothing is under way
  } catch (const StalledError& error) {
    fail(operation, watch, error.what(), true);
    throw;
  } catch (const std::bad_alloc&) {
    fail(operation, watch, "out of memory", false);
    throw;
  } catch (const std::exception& error) {
    fail(operation, watch, error.what(), false);
    throw;
  }
}

/// A call has completed.
void Communicator::count() {
  lane_.recorder().count(Counter::calls);
  lane_.recorder().timeline().flush_at_times();
}

template <class T>
T Communicator::complete(Task<T> task, Operation& operation, Watch& watch) {
  drive(task, operation, lane_, turns_, watch);
  return task.result();
}

/// Who has joined, if that is why the task has not been done.
std::optional<SomeJoined> Communicator::attempt(Task<> task, Operation& operation, Watch& watch) {
  try {
    complete(std::move(task), operation, watch);
    return {};
  } catch (const SomeJoined& some) {
    return some;
  }
}

int Communicator::join(Join average, FunctionRef<void()> begin, FunctionRef<std::uint64_t()> rest) {
  Call call;
  call.kind = "join";
  call.detail = average == Join::size ? "average=size" : "average=contributing";
  const auto turn = turns_.take(call, true);
  begin();
  for (std::uint64_t rounds = 0;; ++rounds) {
    Operation operation(call, true);
    operation.join = average;
    std::optional<SomeJoined> some;
    Description others;
    int last = -1;
    guarded(operation, [&](Watch& watch) {
      lane_.control().hooks().check_signals();  // no wait may last long enough for it
      some = attempt(lane_.agree(operation), operation, watch);
      if (some)
        others = complete(described(lane_, operation, *some, {}), operation, watch);
      else
        last = complete(last_to_join(lane_, operation, rounds + rest()), operation, watch);
    });
    if (!some) {
      count();
      return members()[last];
    }
    take_part(others, some->counts());
  }
}

void Communicator::take_part(const Description& description, Joined joined) {
  Operation operation(description.call);
  operation.joined = joined;
  guarded(operation, [&](Watch& watch) {
    complete(ronde::take_part(routes_, operation, description.outlines), operation, watch);
  });
  count();
}

void Communicator::require_usable() const {
  if (lane_.control().failed())
    throw Error("Ronde cannot be used any more, because " + failure() +
                "\ncall ronde.shutdown() and ronde.init() to start again");
}

void Communicator::fail(Operation& operation, const Watch& watch, const std::string& reason,
                        bool stalled) {
  lane_.recorder().count(Counter::failed_calls);
  operation.give_up();
  lane_.abandon_nccl();
  if (turns_.gave_up()) return;
  auto standing = watch.standing();
  // A stall names the call already.
  standing.text = stalled ? reason : reason + " in " + standing.text;
  lane_.control().announce_failure(standing, stalled);
}

void Communicator::run(const Call& call, Collective collective, std::string_view algorithm,
                       FunctionRef<Task<>(Route&, Operation&)> begin) {
  auto& route = routes_.choose(collective, algorithm);
  Operation operation(call);
  const auto outlines = [&] {
    Recording recording(lane_);
    (void)begin(recording, operation);
    return std::move(recording.outlines);
  };
  run(operation, [&] { return begin(route, operation); }, outlines);
}

void Communicator::run(const Call& call, FunctionRef<Task<>(Routes&, Operation&)> begin,
                       FunctionRef<std::vector<Outline>()> outlines) {
  Operation operation(call);
  run(operation, [&] { return begin(routes_, operation); }, outlines);
}

void Communicator::allreduce_compressed(const Call& call, std::span<const Piece> pieces,
                                        const Reduction& reduction,
                                        const Compression& compression) {
  const bool one_machine = size() == 1 || (lane_.board() && !lane_.across());
  if (one_machine && !compression.per_rank) {
    return run(call, Collective::allreduce, {}, [&](Route& route, Operation& operation) {
      return route.allreduce(operation, pieces, reduction, {});
    });
  }
  Operation operation(call);
  const auto begin = [&] {
    return ronde::allreduce_compressed(lane_, operation, pieces, reduction, compression);
  };
  run(operation, begin, for_all_ranks);
}

void Communicator::end(const Call& call, std::span<Communicator* const> sets) {
  if (is_inside() ||
      std::any_of(sets.begin(), sets.end(), [](auto* set) { return set->is_inside(); }))
    throw Error("a call cannot be made inside another: " + call.text());
  auto& control = lane_.control();
  control.begin_end(call.text());
  Operation operation(call, true);
  try {
    for (auto* set : sets) set->turns_.leave();
    run(operation, [&] { return lane_.agree(operation); }, for_all_ranks);
  } catch (...) {
    // Other threads of this rank would wait for ever for an end that does not come.
    if (control.ends_here()) control.go_on();
    throw;
  }
}

bool Communicator::share_memory(std::span<const int> machines) {
  const auto neighbours = neighbours_of(rank(), size(), machines);
  Call call;
  call.kind = "sharing of memory";
  Operation operation(call);
  const auto begin = [&] { return ronde::share_memory(lane_, operation, neighbours); };
  run(operation, begin, for_all_ranks);
  return lane_.board() != nullptr;
}

void Communicator::describe_gpus(Call& call, std::span<const Piece> arrays) const {
  if (!lane_.uses_nccl() || !on_gpu(arrays)) return;
  std::string on_host, elsewhere;  // arrays
  const auto add = [](std::string& list, std::size_t array) {
    list += (list.empty() ? "" : ", ") + std::to_string(array);
  };
  for (std::size_t i = 0; i < arrays.size(); ++i) {
    const ConstBuffer& memory = arrays[i].input;
    if (memory.bytes && !on_gpu(memory)) add(on_host, i);
    if (on_gpu(memory) && !lane_.is_own_gpu(memory.device.number)) add(elsewhere, i);
  }
  if (!call.detail.empty()) call.detail += ", ";
  call.detail += "on GPUs";
  if (!on_host.empty()) call.detail += " but for arrays " + on_host;
  if (!elsewhere.empty())
    call.detail += ", not on the first that this rank used: arrays " + elsewhere;
}

bool Communicator::close(const std::string& why) {
  const bool clean = turns_.close(why);
  lane_.end_nccl();
  return clean;
}

void Communicator::know_link() {
  Call call;
  call.kind = "measurement of the link, if it is not known";
  Operation operation(call);
  run(operation, [&] { return agree_on_link(lane_, operation); }, for_all_ranks);
}

}  // namespace ronde
