// An allreduce through shared memory, or phase 0 alone, as something under way.
#pragma once

#include <memory>
#include <utility>

#include "collective/work.h"
#include "node/board.h"
#include "node/shared_allreduce.h"

namespace ronde {

class SharedWork final : public Work {
 public:
  SharedWork(std::shared_ptr<Board> board, std::uint64_t fingerprint, ConstBuffer input,
             Buffer output, const Reduction& reduction)
      : board_(std::move(board)), allreduce_(*board_, fingerprint, input, output, reduction) {}

  Progress progress() override {
    if (allreduce_.advance()) return Progress::done;
    const auto before = std::exchange(seen_, allreduce_.iteration());
    return before == seen_ ? Progress::idle : Progress::moved;
  }

  /// The last rank to arrive wakes the others, so this may be long. It ends for the sake of the
  /// slow checks.
  void sleep(std::chrono::microseconds) override { board_->sleep(std::chrono::milliseconds(20)); }

  bool agreed() const { return allreduce_.agreed(); }

 private:
  const std::shared_ptr<Board> board_;
  SharedAllreduce allreduce_;
  std::size_t seen_ = 0;
};

}  // namespace ronde
