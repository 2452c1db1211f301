// One call at a time on a lane: whose turn it is, and when no further one comes.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "collective/lane.h"
#include "collective/watch.h"

namespace ronde {

class Turns {
 public:
  explicit Turns(Lane& lane) : lane_(lane) {}
  ~Turns();

  /// Other threads of this rank that want a turn wait for its end.
  class Turn {
   public:
    explicit Turn(Turns& turns) : turns_(turns) {}
    ~Turn() { turns_.end(); }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

   private:
    Turns& turns_;
  };

  /// Waits for it. Throws where it cannot come. `joins`: other threads are not to wait for its end.
  Turn take(const Call& call, bool joins = false);

  /// Throws where none begins any more.
  void require_open() const;

  /// Whether it is the turn of this thread: its handlers of signals may ask.
  bool is_inside() const {
    return owner_.load(std::memory_order_relaxed) == std::this_thread::get_id();
  }

  /// If this rank ends Ronde, reports to the other members that it makes no further call; if it is
  /// in one now, when that has completed.
  void leave();

  /// From now on none begins, and `why` is thrown. Returns, when the last has ended, whether none
  /// was given up.
  bool close(const std::string& why);

  /// Ends a wait of `elapsed` seconds for ranks that do not come, or in what is being closed. That
  /// concerns this lane alone: the job continues.
  void require_members(const Operation& operation, const Watch& watch, double elapsed);

  /// Whether a call was given up, so that messages of it may still be under way.
  bool gave_up() const { return gave_up_; }

 private:
  bool begin();
  void end();
  bool may_begin() const;
  void refuse(const std::string& why);

  Lane& lane_;
  std::mutex mutex_;
  std::atomic<std::thread::id> owner_;                // the thread whose turn it is
  std::atomic<const std::string*> refused_{nullptr};  // why, once no call is made any more
  std::atomic<bool> gave_up_ = false;
  std::atomic<bool> joined_ = false;  // whoever has the turn
};

}  // namespace ronde
