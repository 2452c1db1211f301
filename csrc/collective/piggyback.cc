#include "collective/piggyback.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "kernels/kernels.h"
#include "schedule/schedule.h"

namespace ronde {
namespace {

bool is_power_of_two(int size) { return std::has_single_bit(static_cast<unsigned>(size)); }

}  // namespace

int rank_at(int rank, int size, int distance) {
  if (!is_power_of_two(size)) return ((rank - distance) % size + size) % size;
  const auto bits = static_cast<unsigned>(std::abs(distance));
  for (int round = 0; bits >> round; ++round) {
    if (bits >> round & 1) rank ^= size / 2 >> round;
  }
  return rank;
}

bool Contributions::fits(std::size_t bytes, int size) {
  constexpr int kMostInputs = 64;  // of one reduction (kernels.h)
  const auto ranks = static_cast<std::size_t>(size);
  // In the last round half of them travel, or a little less.
  return size <= kMostInputs && bytes * ranks <= 2 * kMostBytes;
}

Contributions::Contributions(int rank, int size, ConstBuffer mine)
    : rank_(rank), size_(size), length_(mine.bytes), all_(mine.bytes * size) {
  copy_bytes(all_.data(), mine.data, length_);
}

std::size_t Contributions::expected(int round) const {
  const int reached = 1 << round;
  return length_ * static_cast<std::size_t>(std::min(reached, size_ - reached));
}

std::size_t Contributions::put(int round, std::byte* message) const {
  const std::size_t bytes = expected(round);
  copy_bytes(message, all_.data(), bytes);
  return bytes;
}

void Contributions::take(int round, const std::byte* message) {
  const std::size_t bytes = expected(round);
  copy_bytes(all_.data() + (length_ << round), message, bytes);
}

const std::byte* Contributions::of(int rank) const {
  int distance = 0;
  while (rank_at(rank_, size_, distance) != rank) ++distance;
  return all_.data() + distance * length_;
}

std::size_t Least::put(int, std::byte* message) const {
  std::memcpy(message, words_.data(), words_.size_bytes());
  return words_.size_bytes();
}

void Least::take(int, const std::byte* message) {
  for (auto& word : words_) {
    std::uint64_t theirs;
    std::memcpy(&theirs, message, sizeof theirs);
    word = std::min(word, theirs);
    message += sizeof theirs;
  }
}

double piggyback_seconds(std::size_t bytes, int size, const Link& link) {
  if (bytes == 0 || size == 1 || !Contributions::fits(bytes, size))
    return std::numeric_limits<double>::infinity();
  return ceil_log2(size) * link.alpha +
         static_cast<double>(bytes) * (size - 1) * (link.beta + link.gamma);
}

}  // namespace ronde
