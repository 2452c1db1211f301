#include "node/shared_collective.h"

#include "trace/clock.h"

namespace ronde {
namespace {

// The last rank to arrive never waits: after so many moves it looks up, so that it can be
// interrupted.
constexpr int kTurns = 64;

}  // namespace

void SharedCollective::enter(Note& note, std::uint64_t fingerprint) {
  note.fingerprint = fingerprint;
  board_.arrive();
}

bool SharedCollective::advance() {
  for (int turn = 0; turn < kTurns && (stage_ == Stage::working || board_.passed()); ++turn) {
    ++moves_;
    switch (stage_) {
      case Stage::agreeing:
        if (timed_) agreed_at_ = exact_time();
        said_ = compare();
        if (!said_.equal()) return true;
        if (!call_vote() && begin_rounds()) return true;
        break;
      case Stage::voting:
        board_.directory().settle(board_.unanimous());
        if (begin_rounds()) return true;
        break;
      case Stage::synchronising:
        stage_ = Stage::working;
        break;
      case Stage::working:
        if (late_) {
          if (board_.note(board_.rank()).input) copy_in(0);
          late_ = false;
        } else {
          if (!round(round_)) break;
          if (++round_ == rounds_) return true;
        }
        board_.arrive();
        stage_ = Stage::synchronising;
        break;
    }
  }
  return false;
}

/// Whether there is nothing left to do.
bool SharedCollective::begin_rounds() {
  rounds_ = plan();
  stage_ = Stage::working;
  return rounds_ == 0;
}

void SharedCollective::begin_stages(std::size_t chunks) {
  for (int rank = 0; rank < board_.size(); ++rank) late_ |= bool(board_.note(rank).input);
  board_.count_chunks(chunks);
}

Extremes SharedCollective::compare() const {
  auto said = Extremes::of(board_.note(0).fingerprint);
  for (int rank = 1; rank < board_.size(); ++rank)
    said.join(Extremes::of(board_.note(rank).fingerprint));
  return said;
}

/// Opens what is new to the ranks, if anything is.
bool SharedCollective::call_vote() {
  auto& directory = board_.directory();
  bool anything = false, voice = true;
  for (int rank = 0; rank < board_.size(); ++rank) {
    const auto& note = board_.note(rank);
    for (const auto& location : {note.input, note.output}) {
      if (!location || directory.settled(rank, location)) continue;
      anything = true;
      voice &= directory.open(rank, location);
    }
  }
  if (!anything) return false;
  board_.vote(voice);
  board_.arrive();
  stage_ = Stage::voting;
  return true;
}

}  // namespace ronde
