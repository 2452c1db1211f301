#include "collective/riding.h"

#include <algorithm>
#include <bit>
#include <cstdlib>

#include "kernels/kernels.h"

namespace ronde {
namespace {

bool is_power_of_two(int size) { return std::has_single_bit(static_cast<unsigned>(size)); }

/// How far away the peer of a round is, where the number of ranks is a power of two.
int distance(int round, int size) { return size / 2 >> round; }

}  // namespace

int rank_at(int rank, int size, int places) {
  if (!is_power_of_two(size)) return ((rank - places) % size + size) % size;
  const auto bits = static_cast<unsigned>(std::abs(places));
  for (int round = 0; bits >> round; ++round) {
    if (bits >> round & 1) rank ^= distance(round, size);
  }
  return rank;
}

// Contributions -----------------------------------------------------------------------------------

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

std::size_t Contributions::put(int round, std::byte* message) {
  const std::size_t bytes = expected(round);
  copy_bytes(message, all_.data(), bytes);
  return bytes;
}

void Contributions::take(int round, const std::byte* message) {
  const std::size_t bytes = expected(round);
  copy_bytes(all_.data() + (length_ << round), message, bytes);
}

const std::byte* Contributions::of(int rank) const {
  int places = 0;
  while (rank_at(rank_, size_, places) != rank) ++places;
  return all_.data() + places * length_;
}

// Halving -----------------------------------------------------------------------------------------

bool Halving::fits(std::size_t bytes, int size) {
  // Chunks differ by an element, so halves by some.
  const std::size_t uneven = sizeof(double) * static_cast<std::size_t>(size);
  return is_power_of_two(size) && bytes / 2 + uneven <= kMostBytes;
}

Halving::Halving(int rank, const Chunks& chunks, Buffer vector, const Reduction& reduction)
    : rank_(rank), chunks_(chunks), vector_(vector), reduction_(reduction) {}

Buffer Halving::half(int round, int rank) const {
  const int width = distance(round, chunks_.size()), first = rank / width * width;
  const Range range = chunks_.span(first, first + width);
  const std::size_t item = size_of(reduction_.dtype);
  return vector_.slice(range.offset * item, range.count * item);
}

std::size_t Halving::put(int round, std::byte* message) {
  const Buffer given = half(round, rank_ ^ distance(round, chunks_.size()));
  copy_bytes(message, given.data, given.bytes);
  return given.bytes;
}

std::size_t Halving::expected(int round) const { return half(round, rank_).bytes; }

void Halving::take(int round, const std::byte* message) {
  const Buffer kept = half(round, rank_);
  const bool lower = rank_ < (rank_ ^ distance(round, chunks_.size()));  // stands left
  const void *left = lower ? kept.data : message, *right = lower ? message : kept.data;
  const std::size_t count = kept.bytes / size_of(reduction_.dtype);
  if (reduction_.averages_halves())
    mean(reduction_.dtype, kept.data, {left, 1}, {right, 1}, count);  // of equally many each
  else
    reduce(reduction_.op, reduction_.dtype, kept.data, left, right, count);
}

// The choice --------------------------------------------------------------------------------------

Riding cheapest_ride(std::size_t bytes, int size, const Link& link, double otherwise) {
  Riding cheapest{.ride = Ride::none, .seconds = otherwise};
  if (bytes == 0 || size == 1) return cheapest;
  const double latency = ceil_log2(size) * link.alpha;
  const double all = static_cast<double>(bytes) * (size - 1), part = all / size;
  const auto consider = [&](Ride ride, bool fits, double seconds) {
    if (fits && seconds < cheapest.seconds) cheapest = {ride, seconds};
  };
  consider(Ride::halving, Halving::fits(bytes, size),
           2 * latency + part * (2 * link.beta + link.gamma));
  consider(Ride::contributions, Contributions::fits(bytes, size),
           latency + all * (link.beta + link.gamma));
  return cheapest;
}

}  // namespace ronde
