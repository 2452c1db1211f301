// What the calls of a process set go through, one after another: messages, with tags of their own;
// the memory of the machine, where ranks share some; and phase 0, in which they agree on a call.
//
// Every call begins with phase 0 (agreement.h). No memory of the caller is written before all have
// agreed, and nothing of it sent but what is piggybacked (piggyback.h). The ranks of a machine
// agree in shared memory, and the machines over the network.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "collective/agreement.h"
#include "collective/control.h"
#include "collective/operation.h"
#include "collective/plans.h"
#include "collective/settings.h"
#include "collective/shared.h"
#include "collective/task.h"
#include "core/extremes.h"
#include "core/pieces.h"
#include "core/reduction.h"
#include "cuda/order.h"
#include "node/board.h"
#include "trace/recorder.h"
#include "transport/transport.h"

namespace ronde {

/// The ranks of the machines, as this rank sees them.
struct Neighbours {
  std::vector<int> here;             // the ranks of this machine
  int local_rank = 0;                // of this rank among them
  std::vector<int> same_local_rank;  // the ranks with that one, one from each machine
};

class NcclConnection;

class Lane {
 public:
  /// `transport` connects the members of the set, whose ranks in the job are `members`.
  Lane(std::shared_ptr<Control> control, std::shared_ptr<Transport> transport, int set,
       std::vector<int> members, Settings settings);
  /// One of several of the same ranks, for asynchronous calls, which can be under way beside those
  /// of the others.
  struct Asynchronous {
    int number;                    // below kMostAsynchronous
    std::shared_ptr<Plans> plans;  // of all of them
  };
  static constexpr int kMostAsynchronous = 3;
  Lane(const Lane& blocking, Asynchronous one);
  ~Lane();
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  int rank() const { return transport_->rank(); }
  int size() const { return transport_->size(); }
  int set() const { return set_; }
  /// By which notices of the control channel tell lanes apart.
  int number() const { return set_ + first_tag_ / kTags * kNumbers; }
  const std::vector<int>& members() const { return members_; }
  const Settings& settings() const { return settings_; }
  Control& control() const { return *control_; }
  Plans& plans() { return *plans_; }
  Recorder& recorder() const { return *recorder_; }

  /// Of all members.
  Transport& transport() const { return *transport_; }
  /// Of the ranks of this machine; null where they share no memory.
  Board* board() const { return board_.get(); }
  /// Of the ranks with this local rank, one on each machine; null for one machine, and where ranks
  /// share no memory.
  Transport* across() const { return across_.get(); }
  /// Of the ranks of this machine; null as that.
  Transport* inside() const { return inside_.get(); }
  /// The ranks that messages of phase 0 go to.
  Transport& outward() const { return across_ ? *across_ : *transport_; }

  /// From now on the ranks of this machine share memory.
  void share(std::shared_ptr<Board> board, Neighbours neighbours);
  /// If they do: who they are.
  const Neighbours& neighbours() const { return neighbours_; }

  /// From now on arrays of GPUs go over NCCL. All ranks of the set have it, alike.
  void use_nccl();
  /// From now on the ranks of this machine can add up over NCCL what is compressed between the
  /// machines. All of this machine have it, alike; other machines may not.
  void use_nccl_inside();
  bool uses_nccl() const { return uses_nccl_; }
  /// How they are connected by it; null where not all have it.
  NcclConnection* nccl() const { return nccl_.get(); }
  /// How the ranks of this machine are; null where not all have it, and where inside() is.
  NcclConnection* nccl_inside() const { return inside_ ? nccl_inside_.get() : nullptr; }
  /// Whether it is the GPU by which NCCL connects this rank, on all lanes: the first that is asked
  /// for.
  bool is_own_gpu(int gpu) const {
    int first = kNoGpu;
    return own_gpu_->compare_exchange_strong(first, gpu) || first == gpu;
  }
  /// Where the call that is under way enqueues on a GPU what may have to wait for other ranks: in
  /// the order of calls, which is the same on all ranks.
  cuda::StreamHandle stream_on(cuda::Device& gpu);
  /// A call was given up: nothing of NCCL's waits for its peers any more.
  void abandon_nccl() const;
  /// Ends that. No call is under way.
  void end_nccl();

  /// All that messages of a failed call may still touch.
  void keep_until_exit() const;

  /// The number of the last agreement.
  std::uint64_t sequence() const { return sequence_; }
  /// The next agreement is one of this operation.
  void next(Operation& operation) {
    operation.sequence = ++sequence_;
    operation.entry.agrees(sequence_);
  }
  /// So much of its data takes a route.
  void takes(Operation& operation, Counter route, std::size_t bytes) const {
    recorder_->count(route, bytes);
    operation.entry.has(bytes);
  }

  /// `extent`: what must be equal on all ranks whatever the call says, so that none reads or writes
  /// where it must not.
  std::uint64_t fingerprint(const Operation& operation, std::uint64_t extent = 0) const;

  /// Phase 0, and nothing else; not even that where the ranks have agreed on the operation.
  Task<> agree(Operation& operation);
  /// The same, unless the user does without.
  Task<> begin(Operation& operation);
  /// `said`: the fingerprints of this rank, or of those of its machine. What is piggybacked is
  /// exchanged also where the ranks have agreed before.
  Task<> agree_by_messages(Operation& operation, Extremes said,
                           std::shared_ptr<Piggyback> piggyback = nullptr);
  /// Phase 0 that leaves in each of `words` the least of all ranks. The `pieces` are reduced by the
  /// way, if the first three words are the same on all ranks (shared_round.h); there can be some
  /// only where all ranks share memory.
  Task<> agree_on_least(Operation& operation, std::span<std::uint64_t> words, Pieces pieces,
                        Reduction reduction);
  /// A shared collective of the ranks of this machine.
  template <class Collective, class... Arguments>
  std::shared_ptr<SharedWork> shared(Arguments&&... arguments) const {
    return std::make_shared<SharedWorkOf<Collective>>(board_,
                                                      std::forward<Arguments>(arguments)...);
  }
  /// Runs it. Returns the fingerprints of these ranks.
  Task<Extremes> agree_in_memory(Operation& operation, std::shared_ptr<SharedWork> work);
  /// The same where these are all ranks: phase 0 and, for a collective, all that follows.
  Task<> run_in_memory(Operation& operation, std::shared_ptr<SharedWork> work);

  // Tags: phase 0 and exchanges outside it have one each. Data has one for each
  // agreement, so that messages of one never meet a receive of the next.
  int agreement_tag() const { return first_tag_; }
  int exchange_tag() const { return first_tag_ + 1; }
  int data_tag(const Operation& operation) const {
    return first_tag_ + 2 + static_cast<int>(operation.sequence % (kTags - 3));
  }

  /// Whether somebody reads how calls go (RONDE_LOG=debug).
  bool explains() const { return explains_; }
  /// `how` is said once for each kind of call.
  void explain(const Operation& operation, const std::string& how);

 private:
  static constexpr int kTags = kMaxTag / (1 + kMostAsynchronous);
  static constexpr int kNumbers = 1 << 24;  // for sets

  Lane(const std::shared_ptr<Control>& control, const std::shared_ptr<Transport>& transport,
       int set, const std::vector<int>& members, const Settings& settings, int first_tag,
       std::shared_ptr<Plans> plans);
  void use_nccl(std::shared_ptr<NcclConnection> connection);
  void use_nccl_inside(std::shared_ptr<NcclConnection> connection);
  Task<> agree_across(Operation& operation);
  Task<> begin_unchecked(Operation& operation);
  void explain_memory(const Operation& operation, const std::string& route);

  const std::shared_ptr<Control> control_;
  const std::unique_ptr<Recorder> recorder_;
  const std::shared_ptr<Transport> transport_;
  const int set_;
  const int first_tag_;
  const std::vector<int> members_;
  const Settings settings_;
  const std::shared_ptr<Plans> plans_;
  std::shared_ptr<Board> board_;
  std::shared_ptr<Transport> across_, inside_;
  Neighbours neighbours_;
  static constexpr int kNoGpu = -1;
  std::shared_ptr<std::atomic<int>> own_gpu_ = std::make_shared<std::atomic<int>>(kNoGpu);
  bool uses_nccl_ = false;
  std::shared_ptr<NcclConnection> nccl_, nccl_inside_;
  std::map<cuda::Ordinal, cuda::OwnStream> streams_;
  std::uint64_t sequence_ = 0;
  const bool explains_;
  std::set<std::string> explained_;
};

}  // namespace ronde
