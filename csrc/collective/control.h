// The control channel: short notices between all ranks of a job, outside every collective.
//
// It is silent while all goes well. A rank that has waited long reports to the others where it
// stands, and so those who wait can name the missing ranks. A rank that fails says so, and the
// others stop waiting for it. Only the slow part of a wait looks at the channel.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "collective/hooks.h"
#include "collective/requests.h"
#include "collective/work.h"
#include "trace/flight_record.h"
#include "transport/transport.h"

namespace ronde {

/// Where a rank stands in which call of which process set.
struct Standing {
  std::int32_t set = -1;
  std::uint64_t sequence = 0;
  std::string text;                               // the call and the call site
  std::size_t call = 0;                           // how much of the text is the call
  std::chrono::steady_clock::time_point since{};  // when it began to wait

  /// "train.py:42"
  std::string site() const {
    constexpr std::size_t kAt = 4;  // " at "
    return text.size() > call + kAt ? text.substr(call + kAt) : "";
  }
  bool same_call(const Standing& other) const {
    return set == other.set && sequence == other.sequence;
  }
};

class Control {
 public:
  /// `transport` connects all ranks of the job and is used for nothing else.
  Control(std::shared_ptr<Transport> transport, Hooks hooks);

  ~Control();

  int rank() const { return transport_->rank(); }
  int size() const { return transport_->size(); }
  const Hooks& hooks() const { return hooks_; }
  const std::shared_ptr<FlightRecord>& flight_record() const { return flight_record_; }

  /// What else a thread does that waits in a blocking call; returns whether more of it may come at
  /// any time. Set before there are calls.
  void set_meanwhile(std::function<bool()> work) { meanwhile_ = std::move(work); }
  bool meanwhile() const { return meanwhile_ && meanwhile_(); }

  /// What tasks need a thread of the caller for.
  Requests& requests() { return requests_; }
  /// Runs what they have asked for. For threads of the caller; returns whether there was anything.
  bool run_requests() {
    if (!requests_.waiting()) return false;
    hooks_.enter([this] { requests_.run(); });
    return true;
  }

  /// What is given up once this process' communicators have become unusable, if it is still there.
  /// Any thread may do that.
  void abandon_on_failure(const std::shared_ptr<Work>& work);

  /// Reports to all ranks that this one waits, and that it does no longer.
  void announce_waiting(const Standing& standing);
  void announce_resumed(const Standing& standing);

  /// Reports to all ranks that this one has given up. From here on this process' communicators are
  /// unusable. `stalled`: it gave up because others did not come, which is no failure of its own.
  void announce_failure(const Standing& standing, bool stalled);

  /// This thread ends Ronde on this rank, with this call. Until it continues after all, no other
  /// begins one.
  void begin_end(const std::string& call);
  void go_on();
  bool ending() const { return ending_.load() != std::thread::id(); }
  bool ends_here() const { return ending_.load() == std::this_thread::get_id(); }

  /// If this rank is ending, reports to the members of a set that it makes no call there beyond
  /// this number.
  void announce_leaving(int set, std::uint64_t sequence, const std::vector<int>& members);

  /// The first of these ranks that will not make a call, and why, in words; nothing if there is
  /// none.
  std::optional<std::string> missing(const std::vector<int>& members, int set,
                                     std::uint64_t sequence) const;

  /// Takes the notices that have come. Throws if another rank has failed: StalledError where it
  /// gave up in the call that this rank is in, else RankFailedError.
  void poll(const Standing& mine);

  /// Whether another rank waits somewhere by its own word.
  bool others_wait() const;

  /// Where a rank waits by its own word: nowhere that is known, or in one set, or, if it has
  /// several threads, in several.
  std::vector<Standing> waiting(int rank) const;

  /// Why this process' communicators cannot be used any more; empty while they can.
  std::string failure() const;
  bool failed() const { return failed_.load(std::memory_order_acquire); }

  /// Receives the last notices of all ranks, which must all call it after their last collective.
  /// If that does not succeed within seconds it returns false, and what is under way is kept.
  bool close();

 private:
  enum class Kind : std::int32_t { waiting, resumed, failed, stalled, leaving, goodbye };

  /// A notice as it travels. Fixed size, small enough to be sent without the receiver's help.
  struct Notice {
    Kind kind;
    std::int32_t rank;
    std::int32_t set;
    std::uint32_t length, call;  // of the text
    std::uint64_t sequence;
    double waited;  // seconds
    char text[1000];
  };

  struct Outgoing {
    std::shared_ptr<Notice> notice;
    Request request;
  };

  void notify_all(Kind kind, const Standing& standing);
  void notify(const std::vector<int>& peers, Kind kind, const Standing& standing);
  void send(int peer, std::shared_ptr<Notice> notice);
  void post();
  bool take_notice(Notice& notice);
  void fail(std::string text);
  void collect_sent();
  void handle(const Notice& notice, const Standing& mine);

  mutable std::mutex mutex_;  // several threads of a process may wait, each in its own process set
  const std::shared_ptr<Transport> transport_;
  const Hooks hooks_;
  const std::shared_ptr<FlightRecord> flight_record_ = std::make_shared<FlightRecord>();
  std::function<bool()> meanwhile_;
  Requests requests_;
  const std::shared_ptr<Notice> incoming_;
  Request request_ = 0;
  std::list<Outgoing> outgoing_;
  std::map<std::pair<int, int>, Standing> waiting_;  // by rank and set
  std::map<std::pair<int, int>, Standing> leaving_;  // likewise, with the last call there
  std::atomic<std::thread::id> ending_;              // the thread that ends Ronde on this rank
  std::string end_;                                  // the call that it does so with
  std::vector<int> left_;                            // the sets in which it was reported
  std::vector<std::weak_ptr<Work>> under_way_;       // to be given up on a failure
  int goodbyes_ = 0;                                 // of all ranks, this one's last
  bool closed_ = false;
  std::string failure_;
  std::atomic<bool> failed_ = false;  // whether `failure_` says anything
};

}  // namespace ronde
