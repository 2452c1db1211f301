#include "node/board.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <ctime>
#include <utility>

#include "core/round.h"

namespace ronde {
namespace {

// What the ranks write about each other's shares of an alltoall or a scatter: a word for each rank,
// and a header.
constexpr std::size_t kHeaderBytes = 1024;

// From a page to the first stage. A large NumPy array begins 16 bytes into a page: copies from
// there to a stage and back again would alias in their pages (kernels/copy.inc), one way or the
// other, if stages began less than 80 bytes into one.
constexpr std::size_t kAside = 2 * kCacheLine;

std::size_t note_bytes_for(int ranks) {
  const std::size_t words = ranks * sizeof(std::uint64_t) + kHeaderBytes;
  const std::size_t payload = std::max(Board::kShortBytes, words);
  return rounded(sizeof(Note) - sizeof(Note::payload) + payload, kCacheLine);
}

/// Where the parts of the segment begin.
struct Plan {
  explicit Plan(int ranks, std::size_t header) {
    directory = rounded(header, kPage);
    notes = rounded(directory + Directory::bytes_for(ranks), kPage);
    stages = rounded(notes + 2 * ranks * note_bytes_for(ranks), kPage) + kAside;
    results = stages + Board::kStages * ranks * Board::kStageBytes;
    end = results + Board::kStages * Board::kStageBytes;
  }
  std::size_t directory, notes, stages, results, end;
};

}  // namespace

struct alignas(kCacheLine) Board::Header {
  std::atomic<std::uint32_t> arrived;
  alignas(kCacheLine) std::atomic<std::uint32_t> sleepers;
  alignas(kCacheLine) std::atomic<std::uint64_t> tickets;
  alignas(kCacheLine) std::atomic<bool> given_up;
  std::atomic<bool> streams;
  /// Of one rank: its signature, and its voice in a vote.
  struct alignas(kCacheLine) Seat {
    std::atomic<std::uint64_t> signature;
    std::uint64_t vote;
  };
  static std::size_t bytes_for(int ranks) { return sizeof(Header) + ranks * sizeof(Seat); }
  Seat& seat(int rank) { return reinterpret_cast<Seat*>(this + 1)[rank]; }
};

std::size_t Board::bytes_for(int ranks) { return Plan(ranks, Header::bytes_for(ranks)).end; }

Board::Board(std::shared_ptr<Segment> segment, int rank, int size)
    : segment_(std::move(segment)),
      rank_(rank),
      size_(size),
      note_bytes_(note_bytes_for(size)),
      directory_(segment_->data() + Plan(size, Header::bytes_for(size)).directory, rank) {
  const Plan plan(size, Header::bytes_for(size));
  notes_ = segment_->data() + plan.notes;
  stages_ = segment_->data() + plan.stages;
  results_ = segment_->data() + plan.results;
}

void Board::sign(std::uint64_t word) { header().seat(rank_).signature = word + rank_; }

bool Board::all_signed(std::uint64_t word) const {
  for (int rank = 0; rank < size_; ++rank) {
    if (header().seat(rank).signature != word + rank) return false;
  }
  return true;
}

void Board::vote(bool voice) { header().seat(rank_).vote = voice; }

bool Board::unanimous() const {
  for (int rank = 0; rank < size_; ++rank) {
    if (!header().seat(rank).vote) return false;
  }
  return true;
}

Note& Board::new_note() {
  ++rounds_;
  auto& note = note_of(rank_);
  note.input = note.output = {};
  return note;
}

Note& Board::note_of(int rank) const {
  const std::size_t index = rounds_ % 2 * size_ + rank;
  return *reinterpret_cast<Note*>(notes_ + index * note_bytes_);
}

std::byte* Board::stage(int rank, std::uint64_t chunk) const {
  return stages_ + (chunk % kStages * size_ + rank) * kStageBytes;
}

std::byte* Board::result(std::uint64_t chunk) const {
  return results_ + chunk % kStages * kStageBytes;
}

bool Board::streams(std::uint64_t chunk) const {
  const auto place = chunk % kSampled;
  return place < 2 ? place == 1 : header().streams.load(std::memory_order_relaxed);
}

Board::Reading::Reading(Board& board, std::uint64_t chunk)
    : board_(board), place_(chunk % kSampled), counts_(board.rank_ == 0 && place_ < 2) {
  if (counts_) since_ = Clock::now();
}

Board::Reading::~Reading() {
  if (!counts_) return;
  const auto time = Clock::now() - since_;
  if (place_ == 0) {
    board_.cached_bytes_ = bytes_;
    board_.cached_time_ = time;
  } else if (bytes_ >= kEnough && bytes_ == board_.cached_bytes_) {
    board_.header().streams.store(time < board_.cached_time_, std::memory_order_relaxed);
  }
}

void Board::begin_tickets(std::uint64_t pieces) {
  first_ticket_ = next_first_ticket_;
  // Every rank draws one that is beyond the last.
  next_first_ticket_ += pieces + size_;
}

std::uint64_t Board::draw_ticket() {
  return header().tickets.fetch_add(1, std::memory_order_relaxed) - first_ticket_;
}

void Board::arrive() {
  arrivals_ += static_cast<std::uint32_t>(size_);
  // This and the count of sleepers are sequentially consistent: either the last to arrive sees a
  // sleeper, or the sleeper sees the last arrival before it sleeps.
  if (header().arrived.fetch_add(1) + 1 == arrivals_ && header().sleepers.load() > 0)
    syscall(SYS_futex, &header().arrived, FUTEX_WAKE, size_, nullptr, nullptr, 0);
}

void Board::give_up() { header().given_up = true; }

bool Board::passed() const {
  if (header().given_up.load(std::memory_order_relaxed)) return false;
  // By difference, as the counter wraps.
  const auto ahead = header().arrived.load(std::memory_order_acquire) - arrivals_;
  return static_cast<std::int32_t>(ahead) >= 0;
}

void Board::sleep(std::chrono::microseconds longest) {
  auto& arrived = header().arrived;
  header().sleepers.fetch_add(1);
  const std::uint32_t seen = arrived.load();
  if (static_cast<std::int32_t>(seen - arrivals_) < 0) {
    const timespec limit{longest.count() / 1000000, longest.count() % 1000000 * 1000};
    // It returns at once if anybody has arrived since `seen` was read.
    syscall(SYS_futex, &arrived, FUTEX_WAIT, seen, &limit, nullptr, 0);
  }
  header().sleepers.fetch_sub(1);
}

}  // namespace ronde
