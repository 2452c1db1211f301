// A collective through shared memory, as something under way.
#pragma once

#include <memory>
#include <utility>

#include "collective/work.h"
#include "node/board.h"
#include "node/shared_collective.h"

namespace ronde {

class SharedWork : public Work {
 public:
  Progress progress() override {
    if (collective_.advance()) return Progress::done;
    const auto before = std::exchange(seen_, collective_.moves());
    return before == seen_ ? Progress::idle : Progress::moved;
  }

  /// Longer than some slices of the scheduler: where something else runs on the machine too, a rank
  /// that is waited for may not run for so long. If those that wait gave way then, they would not
  /// run either when it comes back, and so on for each chunk.
  /// Where ranks share cores, the one that is waited for has its turn soon.
  Patience patience() const override { return {std::chrono::milliseconds(20), 200}; }

  /// The last rank to arrive wakes the others, so this may be long. It ends for the sake of the
  /// slow checks.
  void sleep(std::chrono::microseconds) override { board_->sleep(std::chrono::milliseconds(20)); }

  void abandon() override { board_->give_up(); }

  SharedCollective& collective() { return collective_; }
  const Extremes& said() const { return collective_.said(); }
  const char* route() const { return collective_.route(); }

 protected:
  SharedWork(std::shared_ptr<Board> board, SharedCollective& collective)
      : board_(std::move(board)), collective_(collective) {}

  const std::shared_ptr<Board> board_;

 private:
  SharedCollective& collective_;
  std::size_t seen_ = 0;
};

/// Of one allocation: short collectives would notice another.
template <class Collective>
class SharedWorkOf final : public SharedWork {
 public:
  template <class... Arguments>
  explicit SharedWorkOf(std::shared_ptr<Board> board, Arguments&&... arguments)
      : SharedWork(std::move(board), own_), own_(*board_, std::forward<Arguments>(arguments)...) {}

 private:
  Collective own_;
};

}  // namespace ronde
