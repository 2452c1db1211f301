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

class SharedCollective {
 public:
  virtual ~SharedCollective() = default;
  SharedCollective(const SharedCollective&) = delete;
  SharedCollective& operator=(const SharedCollective&) = delete;

  /// Works until it has to wait for the barrier or a time slice is over: false. True when the
  /// collective is complete.
  bool advance();

  /// From now on: when all ranks had come, in exact_time(); 0 before that, and for those that were
  /// not to be timed.
  void time_phases() { timed_ = true; }
  std::int64_t agreed_at() const { return agreed_at_; }

  /// A number that grows whenever there is progress.
  std::size_t moves() const { return moves_; }

  /// Once complete: the fingerprints of the ranks. If they differ, the ranks made different calls,
  /// and the memory of the caller has not been written.
  const Extremes& said() const { return said_; }

  /// Once done: how the data went, in words.
  virtual const char* route() const { return ""; }

 protected:
  explicit SharedCollective(Board& board) : board_(board) {}

  /// Enters phase 0 with the note that was written: the end of every constructor.
  void enter(Note& note, std::uint64_t fingerprint);

  // Bytes that are copied or reduced at a time where no tickets are drawn.
  static constexpr std::size_t kDirectBytes = 1 << 20;
  // From so many bytes of all ranks together on, results bypass the caches: they would not fit.
  static constexpr std::size_t kStreamBytes = 32 << 20;
  // After so many tickets a rank ends its time slice.
  static constexpr int kTicketsAtOnce = 16;

  /// After phase 0: makes the plan from all notes. Returns how many rounds follow.
  virtual std::size_t plan() = 0;

  /// For plan(): so many chunks go through the stages.
  void begin_stages(std::size_t chunks);

  /// Copies a chunk of this rank's data into its stage.
  virtual void copy_in(std::size_t number) = 0;

  /// Does a round (true), or a part of it that fits a time slice (false). There is no barrier after
  /// the last round: other ranks may be in their next call already.
  virtual bool round(std::size_t number) = 0;

  Board& board_;

 private:
  enum class Stage { agreeing, voting, synchronising, working };

  Extremes compare() const;
  bool call_vote();
  bool begin_rounds();

  Stage stage_ = Stage::agreeing;
  std::size_t round_ = 0, rounds_ = 0;
  bool late_ = false;  // first chunks are missing
  std::size_t moves_ = 0;
  bool timed_ = false;
  std::int64_t agreed_at_ = 0;
  Extremes said_ = {};
};

/// Phase 0 alone.
class SharedAgreement final : public SharedCollective {
 public:
  SharedAgreement(Board& board, std::uint64_t fingerprint) : SharedCollective(board) {
    enter(board.new_note(), fingerprint);
  }

 private:
  std::size_t plan() override { return 0; }
  void copy_in(std::size_t) override {}
  bool round(std::size_t) override { return true; }
};

}  // namespace ronde
