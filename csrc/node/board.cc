#include "node/board.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <ctime>
#include <utility>

namespace ronde {
namespace {

constexpr std::size_t kLineBytes = 64;
constexpr std::size_t kPageBytes = 4096;

}  // namespace

struct alignas(kLineBytes) Board::Header {
  std::atomic<std::uint32_t> arrived;
  alignas(kLineBytes) std::atomic<std::uint32_t> sleepers;
};

struct alignas(kLineBytes) Board::Line {
  std::atomic<std::uint64_t> signature;
  std::uint64_t
      fingerprint[2];  // used in turn: a rank may be one call ahead of one that still reads
};

std::size_t Board::bytes_for(int ranks) {
  const std::size_t front = sizeof(Header) + ranks * sizeof(Line);
  const std::size_t pages = (front + kPageBytes - 1) / kPageBytes * kPageBytes;
  return pages + (ranks + 1) * 2 * kStageBytes;  // the stages of all ranks, and the results
}

Board::Board(std::shared_ptr<Segment> segment, int rank, int size)
    : segment_(std::move(segment)), rank_(rank), size_(size) {}

Board::Header& Board::header() const { return *reinterpret_cast<Header*>(segment_->data()); }

Board::Line& Board::line(int rank) const {
  return reinterpret_cast<Line*>(segment_->data() + sizeof(Header))[rank];
}

void Board::sign(std::uint64_t word) { line(rank_).signature = word + rank_; }

bool Board::all_signed(std::uint64_t word) const {
  for (int rank = 0; rank < size_; ++rank) {
    if (line(rank).signature != word + rank) return false;
  }
  return true;
}

void Board::say(std::uint64_t fingerprint) { line(rank_).fingerprint[++rounds_ % 2] = fingerprint; }

std::uint64_t Board::said(int rank) const { return line(rank).fingerprint[rounds_ % 2]; }

std::byte* Board::stage(int rank, std::uint64_t chunk) const {
  const std::size_t front = segment_->size() - (size_ + 1) * 2 * kStageBytes;
  return segment_->data() + front + (2 * rank + chunk % 2) * kStageBytes;
}

std::byte* Board::result(std::uint64_t chunk) const { return stage(size_, chunk); }

void Board::arrive() {
  arrivals_ += static_cast<std::uint32_t>(size_);
  // This and the count of sleepers are sequentially consistent: either the last to arrive sees a
  // sleeper, or the sleeper sees the last arrival before it sleeps.
  if (header().arrived.fetch_add(1) + 1 == arrivals_ && header().sleepers.load() > 0)
    syscall(SYS_futex, &header().arrived, FUTEX_WAKE, size_, nullptr, nullptr, 0);
}

bool Board::passed() const {
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
