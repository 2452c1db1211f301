// The collectives of one process set, as one rank sees them.
//
// Every collective begins with phase 0 (agreement.h), in which the ranks find out whether they make
// the same call. No memory of the caller is written before all have agreed, and nothing of it sent
// but what is piggybacked (piggyback.h). Then a schedule is chosen (select.h) and run
// (execution.h). Where ranks share memory they go through that instead (in_memory.cc,
// across_machines.cc). While it waits, a rank polls the control channel and signals, and monitors
// its deadlines.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "collective/agreement.h"
#include "collective/call.h"
#include "collective/compressed.h"
#include "collective/control.h"
#include "collective/execution.h"
#include "collective/settings.h"
#include "collective/work.h"
#include "core/buffer.h"
#include "core/bytes.h"
#include "core/function_ref.h"
#include "core/pieces.h"
#include "core/reduction.h"
#include "node/board.h"
#include "node/shared_collective.h"
#include "schedule/cost.h"
#include "schedule/schedule.h"
#include "transport/group.h"

namespace ronde {

class Watch;

/// What ranks contributed, one after another. Contributions are counted in rows, whose length all
/// ranks know: a row may hold no bytes at all and still counts.
struct Gathered {
  std::vector<std::size_t> rows;  // of each rank
  Bytes data;                     // empty where this rank gets no result
};

class Communicator {
 public:
  /// `transport` connects the members of the set, whose ranks in the job are `members`.
  Communicator(std::shared_ptr<Control> control, std::shared_ptr<Transport> transport, int set,
               std::vector<int> members, Settings settings);
  ~Communicator();

  int rank() const { return transport_->rank(); }
  int size() const { return transport_->size(); }
  /// The ranks of the set, as ranks of the job.
  const std::vector<int>& members() const { return members_; }
  const Settings& settings() const { return settings_; }
  /// Whether this thread is in a call: its handlers of signals may ask.
  bool is_inside() const {
    return owner_.load(std::memory_order_relaxed) == std::this_thread::get_id();
  }

  /// How many ranks reduce in the memory of this machine before anything crosses to others, if
  /// there are several machines, and which of them this one is.
  int local_size() const { return board_ ? board_->size() : 1; }
  int local_rank() const { return board_ ? board_->rank() : 0; }

  /// Reduces the pieces, which are of one dtype, as one vector.
  void allreduce(const Call& call, std::span<const Piece> pieces, const Reduction& reduction,
                 std::string_view algorithm = {});

  /// The same for sums of float32, compressed where they cross machines: ranks of one machine
  /// reduce exactly, unless the compression is that of each rank's own values. It must be the same
  /// on all ranks, and `call` must describe it.
  void allreduce_compressed(const Call& call, std::span<const Piece> pieces,
                            const Reduction& reduction, const Compression& compression);

  /// `input` is a vector cut into `chunks`; `output` gets this rank's chunk of the reduction.
  void reduce_scatter(const Call& call, ConstBuffer input, Buffer output, const Chunks& chunks,
                      const Reduction& reduction, std::string_view algorithm = {});

  /// The reduction in `output` at the root; other ranks' `output` is not touched.
  void reduce(const Call& call, ConstBuffer input, Buffer output, const Reduction& reduction,
              int root, std::string_view algorithm = {});

  /// From the root's `data` into everybody's.
  void broadcast(const Call& call, Buffer data, int root, std::string_view algorithm = {});

  /// Contributions of any length, to all ranks.
  Gathered allgather(const Call& call, ConstBuffer mine, std::size_t rows, std::size_t row_bytes,
                     std::string_view algorithm = {});

  /// Contributions of any length, to the root. Elsewhere the result's `data` is empty.
  Gathered gather(const Call& call, ConstBuffer mine, std::size_t rows, std::size_t row_bytes,
                  int root, std::string_view algorithm = {});

  /// What the root sends to all ranks in a scatter. Elsewhere it may be empty.
  struct Parts {
    std::span<const std::size_t> rows;  // of each rank
    std::size_t row_bytes = 0;
    std::span<const std::int64_t> header;  // a few words for all, at most kHeaderWords
  };
  struct Scattered {
    std::size_t rows = 0;
    Bytes data;
    std::vector<std::int64_t> header;
  };
  static constexpr std::size_t kHeaderWords = 80;
  static constexpr int kAllRanks = -1;
  static constexpr std::size_t kMaxPlans = 256;  // that are kept

  /// Cuts the root's `all` into parts.
  Scattered scatter(const Call& call, ConstBuffer all, const Parts& parts, int root,
                    std::string_view algorithm = {});

  /// `rows[r]` rows of `all` go to rank r, one after another.
  Gathered alltoall(const Call& call, ConstBuffer all, std::span<const std::size_t> rows,
                    std::size_t row_bytes, std::string_view algorithm = {});

  /// Phase 0 and nothing else.
  void barrier(const Call& call);

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

  /// Measures latency, bandwidth and the speed of reduction together with the other ranks, unless
  /// they are known, and keeps what the slowest found. The first collective of 4 KiB or more does
  /// it by itself; shorter ones assume an ordinary Ethernet.
  void know_link();
  const Link& link() const { return link_; }
  /// Instead of measuring, for tests. All ranks must set the same.
  void set_link(const Link& link);

  /// The bytes of all messages that this rank has sent for the set so far.
  std::int64_t bytes_sent() const { return transport_->bytes_sent(); }

  /// Why this rank cannot use Ronde any more; empty while it can.
  std::string failure() const { return control_->failure(); }
  /// Whether messages of a call that was given up may still be under way.
  bool failed() const { return given_up_ || control_->failed(); }

 private:
  void guarded(const Call& call, FunctionRef<void()> body);
  void perform(const Call& call, Collective collective, std::string_view algorithm,
               FunctionRef<void()> body);
  void take_turn(const Call& call);
  bool begin_turn();
  void end_turn();
  bool may_begin() const;
  void leave();
  void refuse(const std::string& why);
  void require_members(const Watch& watch, double elapsed);
  void give_up(const Call& call, const std::string& reason, bool stalled);
  void require_usable() const;

  void agree(const Call& call, bool patient = false);
  std::uint64_t fingerprint(const Call& call, std::uint64_t extent = 0) const;
  void agree_by_messages(const Call& call, const Extremes& said, bool patient,
                         std::shared_ptr<Contributions> contributions = nullptr);
  void begin(const Call& call);
  bool piggybacks(std::size_t bytes, std::size_t item);
  void reduce_piggybacked(const Call& call, const Extremes& said, ConstBuffer mine, Buffer result,
                          const Reduction& reduction);
  bool through_memory(Collective collective, std::string_view algorithm) const;
  bool chosen_freely(Collective collective, std::string_view algorithm) const;
  using MakeShared = FunctionRef<std::unique_ptr<SharedCollective>(std::uint64_t fingerprint)>;
  void share(const Call& call, std::uint64_t extent, MakeShared make);
  Extremes agree_in_memory(const Call& call, std::uint64_t extent, MakeShared make,
                           bool patient = false);

  // The collectives of ranks that share memory (in_memory.cc).
  void allreduce_in_memory(const Call& call, std::span<const Piece> pieces,
                           const Reduction& reduction);
  void reduce_in_memory(const Call& call, const Piece& piece, const Reduction& reduction, int root);
  void reduce_scatter_in_memory(const Call& call, ConstBuffer input, Buffer output,
                                const Chunks& chunks, const Reduction& reduction);
  void broadcast_in_memory(const Call& call, Buffer data, int root);
  Gathered collect_in_memory(const Call& call, ConstBuffer mine, std::size_t rows,
                             std::size_t row_bytes, int root);
  Scattered scatter_in_memory(const Call& call, ConstBuffer all, const Parts& parts, int root);
  Gathered alltoall_in_memory(const Call& call, ConstBuffer all, std::span<const std::size_t> rows,
                              std::size_t row_bytes);

  // Over several machines with several ranks each (across_machines.cc).
  using Between = FunctionRef<void(const Extremes& said, Buffer slice, Range place)>;
  void allreduce_across(const Call& call, std::span<const Piece> pieces,
                        const Reduction& reduction);
  void reduce_by_slices(const Call& call, std::span<const Piece> pieces, const Reduction& before,
                        Between between);
  void allreduce_short_across(const Call& call, std::span<const Piece> pieces,
                              const Reduction& reduction);
  void compress_between(Transport& transport, const Call& call, Compression compression,
                        std::span<const float> values, std::span<float> result,
                        const Reduction& after);
  void add_payloads(Transport& transport, const Call& call, const Compression& compression,
                    std::span<const float> values, std::span<float> result, const Reduction& after);

  // How calls go, in words (explain.cc). To be called only if explains_.
  struct Plan;
  void explain(const Call& call, const std::string& how);
  void explain_memory(const Call& call, const std::string& route);
  void explain_plan(const Call& call, Collective collective, const Plan& plan, std::size_t bytes,
                    std::string_view named);
  void explain_link();

  Buffer pack(std::span<const Piece> pieces);
  [[noreturn]] void raise_mismatch(const Call& call);
  void drive(const std::shared_ptr<Work>& work, const Call& call, bool patient = false);

  Bytes allocate(std::size_t bytes);
  template <class T>
  std::span<T> allocate_zeros(std::size_t count) {
    const Bytes memory = allocate(count * sizeof(T));
    std::fill_n(memory.as<T>(), count, T{});
    return {memory.as<T>(), count};
  }

  // Tags: phase 0 and the exchange that follows a mismatch have one each; data has one per call, so
  // that calls under way at the same time do not mix.
  static constexpr int kAgreementTag = 0;
  static constexpr int kTextTag = 1;
  static constexpr int kFirstDataTag = 2;
  int data_tag() const {
    return kFirstDataTag + static_cast<int>(sequence_ % (kMaxTag - kFirstDataTag));
  }

  void run(Collective collective, const Layout& layout, Operands operands, Element element,
           const Call& call, std::string_view algorithm);
  void run_on(Transport& transport, Collective collective, const Layout& layout, Operands operands,
              Element element, const Call& call, std::string_view algorithm);
  void know_link(const Call& call, std::size_t bytes);
  void agree_and_know_link(const Call& call, std::size_t bytes);
  bool is_worth_measuring(std::size_t bytes) const;
  const Link& link_for(std::size_t bytes) const;
  static bool is_long(std::size_t bytes);
  Gathered collect(const Call& call, Collective collective, ConstBuffer mine, std::size_t rows,
                   std::size_t row_bytes, int root, std::string_view algorithm);
  void pass_round(const Call& call, const Chunks& chunks, Buffer data);
  std::vector<std::string> exchange_texts(const Call& call, const std::string& mine);
  Transport& outward() const;
  Link measured(const Call& call);
  void keep_link(const Link& link);
  double exchange_seconds(const Call& call, std::size_t bytes, int messages, int repeats);
  double slowest(const Call& call, double seconds);
  std::size_t in_flight() const;

  struct Plan {
    const Algorithm* algorithm;
    std::shared_ptr<const Schedule> schedule;
  };
  const Plan& plan(Collective collective, const Layout& layout, const Element& element,
                   std::string_view algorithm);

  const std::shared_ptr<Control> control_;
  const std::shared_ptr<Transport> transport_;
  const int set_;
  const std::vector<int> members_;
  const Settings settings_;
  const bool explains_;  // whether somebody reads how calls go
  std::set<std::string> explained_;
  Link link_;
  bool link_known_ = false;
  std::mutex mutex_;                    // one call at a time; other threads of the process queue up
  std::atomic<std::thread::id> owner_;  // the thread whose turn it is
  std::atomic<const std::string*> refused_{nullptr};  // why, once no call is made any more
  std::atomic<bool> given_up_ = false;  // whether a call was, which concerns this set alone
  std::uint64_t sequence_ = 0;
  std::shared_ptr<Board> board_;   // of this machine's ranks; null where they share no memory
  std::shared_ptr<Group> across_;  // of this local rank on all machines; null for one machine
  std::vector<std::shared_ptr<const void>> temporaries_;  // memory of the call under way
  // The schedules of recent calls, by all that they depend on.
  using PlanKey = std::tuple<Collective, std::size_t, int, Chunks, Chunks, std::string>;
  std::map<PlanKey, Plan> plans_;
  std::map<std::pair<std::size_t, std::size_t>, bool> piggybacks_;  // by bytes, and of an element
};

}  // namespace ronde
