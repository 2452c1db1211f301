// A collective in the shared memory of one machine, phase 0 included.
//
// It has rounds, between which all ranks synchronise at the barrier of the board:
//
//   before   each rank writes its note and the first chunk of its data, or what fits of it
//   phase 0  all ranks synchronise; do the notes have the same call?
//   vote     only where operands are in memory that is new to the ranks: can all reach it?
//   rounds   what the collective does, see shared_reduction.h and shared_movement.h
//
// A rank whose operand the others might reach directly stages nothing before phase 0. If the data
// must go through the stages after all, there is one round more, for its first chunk.
//
// No memory of the caller is written before all have agreed.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/extremes.h"
#include "node/board.h"

namespace ronde {

class Exchange {
 public:
  virtual ~Exchange() = default;
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

  /// Goes on until the barrier has to be waited for, or for a while (false), or until all is done
  /// (true).
  bool advance();

  /// Grows while it moves.
  std::size_t moves() const { return moves_; }

  /// Once done: what the ranks have said. If not all have said the same, they have not made the
  /// same call, and the caller's memory is as it was.
  const Extremes& said() const { return said_; }

 protected:
  explicit Exchange(Board& board) : board_(board) {}

  /// Comes to phase 0 with the note as it is: the end of every constructor.
  void enter(Note& note, std::uint64_t fingerprint);

  // What is copied or reduced at a time where there is nothing to share out.
  static constexpr std::size_t kDirectBytes = 1 << 20;
  // Results that are so long on all ranks together go around the caches: they would not stay there.
  static constexpr std::size_t kStreamBytes = 32 << 20;
  // After so many tickets a rank looks up.
  static constexpr int kTicketsAtOnce = 16;

  /// After phase 0: what all notes together mean. Returns how many rounds follow.
  virtual std::size_t plan() = 0;

  /// For plan(): that so many chunks go through the stages.
  void begin_stages(std::size_t chunks);

  /// Copies a chunk of this rank's data into its stage.
  virtual void copy_in(std::size_t number) = 0;

  /// Does a round, or a part of it that does not take long (false). The last round has no barrier
  /// behind it: other ranks may be in their next call already.
  virtual bool round(std::size_t number) = 0;

  Board& board_;

 private:
  enum class Stage { agreeing, voting, meeting, working };

  Extremes compare() const;
  bool call_vote();
  bool begin_rounds();

  Stage stage_ = Stage::agreeing;
  std::size_t round_ = 0, rounds_ = 0;
  bool late_ = false;  // first chunks are missing
  std::size_t moves_ = 0;
  Extremes said_ = {};
};

/// Phase 0 alone.
class SharedAgreement final : public Exchange {
 public:
  SharedAgreement(Board& board, std::uint64_t fingerprint) : Exchange(board) {
    enter(board.new_note(), fingerprint);
  }

 private:
  std::size_t plan() override { return 0; }
  void copy_in(std::size_t) override {}
  bool round(std::size_t) override { return true; }
};

}  // namespace ronde
