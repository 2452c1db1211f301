// The collectives of one process set, as one rank sees them.
//
// A call takes its turn (turns.h) and becomes an Operation, for which a route makes a task
// (routes.h, or compressed.h), which is driven to its end (drive.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "collective/compressed_allreduce.h"
#include "collective/control.h"
#include "collective/exchange.h"
#include "collective/lane.h"
#include "collective/routes.h"
#include "collective/settings.h"
#include "collective/turns.h"
#include "core/function_ref.h"

namespace ronde {

class Communicator {
 public:
  /// `transport` connects the members of the set, whose ranks in the job are `members`.
  Communicator(std::shared_ptr<Control> control, std::shared_ptr<Transport> transport, int set,
               std::vector<int> members, Settings settings);
  ~Communicator();

  int rank() const { return lane_.rank(); }
  int size() const { return lane_.size(); }
  /// The ranks of the set, as ranks of the job.
  const std::vector<int>& members() const { return lane_.members(); }
  const Settings& settings() const { return lane_.settings(); }
  /// Whether this thread is in a call.
  bool is_inside() const { return turns_.is_inside(); }

  /// How many ranks reduce in the memory of this machine before anything crosses to others, if
  /// there are several machines, and which of them this one is.
  int local_size() const { return lane_.board() ? lane_.board()->size() : 1; }
  int local_rank() const { return lane_.board() ? lane_.board()->rank() : 0; }

  /// Makes a call of a collective. `begin` makes its task on the route that it takes; `algorithm`
  /// names one for schedules. Throws ArgumentError where that cannot run.
  void run(const Call& call, Collective collective, std::string_view algorithm,
           FunctionRef<Task<>(Route&, Operation&)> begin);
  /// Makes a call whose task takes routes by itself. `outlines`: what it does while other ranks
  /// have joined.
  void run(const Call& call, FunctionRef<Task<>(Routes&, Operation&)> begin,
           FunctionRef<std::vector<Outline>()> outlines);
  /// An allreduce of float32 that is compressed where it crosses machines: ranks of one machine
  /// reduce exactly, unless the compression is that of each rank's own values. It must be the same
  /// on all ranks, and `call` must describe it.
  void allreduce_compressed(const Call& call, std::span<const Piece> pieces,
                            const Reduction& reduction, const Compression& compression);
  /// Whether the call or the user names an algorithm.
  bool names_algorithm(Collective collective, std::string_view algorithm) {
    return !lane_.plans().chosen_freely(collective, algorithm);
  }
  /// Throws ArgumentError where an algorithm cannot run.
  void require_algorithm(Collective collective, std::string_view algorithm) {
    routes_.choose(collective, algorithm);
  }

  /// This rank has no more data: it takes part in the calls of the others with neutral values,
  /// until all ranks have joined. `begin` is called when its turn has come, and `rest` when all
  /// have joined: it returns when the same is true of asynchronous calls, with the number of rounds
  /// that this rank has taken part in there. Returns the last rank to join, a rank of the job.
  /// Throws MismatchError like all ranks where the calls differ, or cannot be made without this
  /// rank.
  int join(Join average, FunctionRef<void()> begin, FunctionRef<std::uint64_t()> rest);

  /// The last call of the job, made on the set of all ranks: a barrier without deadlines. From now
  /// on other threads of this rank begin no call, here or on the `sets` that it is in, and ranks
  /// that wait there for it give up. If the calls of the ranks differ, nothing changes.
  void end(const Call& call, std::span<Communicator* const> sets);

  /// From now on every call is refused with `why`. A call of another thread continues while it
  /// makes progress; if it waits it is given up, and its messages may still be under way. Returns,
  /// when all calls have ended, whether none was given up.
  bool close(const std::string& why);

  /// From now on all collectives are done in shared memory, if all ranks of the set can share some;
  /// returns whether they can. All ranks must call it. `machines`: of each member the number of its
  /// machine, where they are on several; all need equally many members, and then only phase 0 and
  /// allreduce use shared memory, as far as they concern one machine.
  bool share_memory(std::span<const int> machines = {});

  /// From now on arrays of GPUs go over NCCL where it can do what is called (nccl_route.h). All
  /// ranks of the set must have it, in the same version, and a GPU, and call this.
  void use_nccl() { lane_.use_nccl(); }
  /// From now on the ranks of this machine add up arrays of GPUs over NCCL that are compressed
  /// between the machines (compressed.h). All of this machine must have it, in the same version,
  /// and a GPU, and call this; other machines need not.
  void use_nccl_inside() { lane_.use_nccl_inside(); }
  /// Where all do, the routes of a call depend on which of its arrays are on GPUs: the call says
  /// so, as it must be the same on all ranks.
  void describe_gpus(Call& call, std::span<const Piece> arrays) const;

  /// Measures latency, bandwidth and the speed of reduction together with the other ranks, unless
  /// they are known, and keeps what the slowest found. The first collective of 4 KiB or more does
  /// it by itself.
  void know_link();
  const Link& link() { return lane_.plans().link(); }
  /// Instead of measuring, for tests. All ranks must set the same.
  void set_link(const Link& link) { lane_.plans().set_link(link); }

  /// The bytes of all messages that this rank has sent for the set so far.
  std::int64_t bytes_sent() const { return lane_.transport().bytes_sent(); }

  const Lane& lane() const { return lane_; }

  /// Throws if this rank cannot use Ronde any more.
  void require_usable() const;
  /// Throws if this set is closed.
  void require_open() const { turns_.require_open(); }
  /// Why this rank cannot use Ronde any more; empty while it can.
  std::string failure() const { return lane_.control().failure(); }
  /// Whether messages of a call that was given up may still be under way.
  bool failed() const { return turns_.gave_up() || lane_.control().failed(); }

 private:
  void run(Operation& operation, FunctionRef<Task<>()> begin,
           FunctionRef<std::vector<Outline>()> outlines);
  void guarded(Operation& operation, FunctionRef<void(Watch&)> body);
  void count();
  template <class T>
  T complete(Task<T> task, Operation& operation, Watch& watch);
  std::optional<SomeJoined> attempt(Task<> task, Operation& operation, Watch& watch);
  void take_part(const Description& description, Joined joined);
  void fail(Operation& operation, const Watch& watch, const std::string& reason, bool stalled);

  Lane lane_;
  Turns turns_;
  Routes routes_;
};

}  // namespace ronde
