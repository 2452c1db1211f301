#include "cuda/top_k.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <string>

#include "core/error.h"
#include "cuda/kernels/top_k.h"
#include "cuda/layout.h"

namespace ronde::cuda {
namespace {

constexpr std::size_t kThinnest = 64;  // a sample has at most one of so many
constexpr std::size_t kMost = std::numeric_limits<u32>::max();
constexpr unsigned kBlocksEach = 4;  // of a multiprocessor, for the kernels that count and keep

struct Guess {
  std::size_t samples = 0, rank = 0;
  std::size_t space;  // for survivors
};

/// The rank of the k-th largest in a sample, plus three times its spread. What survives then is of
/// a rank that is spread, too: there is space for five times that. Without a sample all survive.
Guess guess(std::size_t count, std::size_t k) {
  const std::size_t samples = std::min<std::size_t>(kMostSamples, count / kThinnest);
  const auto size = static_cast<double>(samples), all = static_cast<double>(count);
  const double rank = static_cast<double>(k) / all * size;
  const double safe = std::floor(rank + 3 * std::sqrt(rank) + 3);
  if (safe >= size) return {.space = count};
  const double most = safe + 5 * std::sqrt(safe) + 5;
  return {.samples = samples,
          .rank = static_cast<std::size_t>(safe),
          .space = std::min(count, static_cast<std::size_t>(std::ceil(all / size * most)))};
}

unsigned blocks_to_keep(const Device& device) {
  return static_cast<unsigned>(device.multiprocessors()) * kBlocksEach;
}

/// Takes what the kernels use from the scratch memory. `space` is set.
void set_scratch(const Device& device, TopK& a, Layout& layout) {
  const auto blocks = blocks_to_keep(device), warps = blocks * (kThreads / 32);
  a.state = layout.take<TopKState>(1);
  a.sample = layout.take<u32>(kMostSamples);
  a.strips = layout.take<Strip>(a.tiles);
  a.of_warps = layout.take<Selected>(warps);
  a.of_blocks = layout.take<Selected>(blocks);
  a.survivors = layout.take<Entry>(a.space);
}

std::size_t tiles_of(std::size_t elements) { return (elements + kTile - 1) / kTile; }

constexpr std::size_t kPacket = 16 / sizeof(float);

std::size_t scratch_bytes(const Device& device, std::size_t count, std::size_t space) {
  TopK a{};
  a.tiles = static_cast<u32>(tiles_of(count + kPacket - 1));
  a.space = static_cast<u32>(space);
  Layout layout(nullptr);
  set_scratch(device, a, layout);
  return layout.bytes();
}

TopK arguments(const Input& input, const Entries& out) {
  if (input.count > kMost) throw ArgumentError("a device selects from less than 2^32 elements");
  TopK a{};
  a.values = input.values;
  a.residual = input.residual;
  a.count = input.count;
  const auto place = [](const float* at) {
    return reinterpret_cast<std::uintptr_t>(at) / sizeof(float) % kPacket;
  };
  a.alike = !a.residual || place(a.values) == place(a.residual);
  a.shift = a.alike ? static_cast<u32>(place(a.values)) : 0;
  a.tiles = static_cast<u32>(tiles_of(input.count + a.shift));
  a.out = out;
  return a;
}

void select(Device& device, StreamHandle stream, const TopK& a) {
  device.fill(stream, a.state, 0, sizeof *a.state);
  const auto whole = std::size_t{a.tiles} * kTile;
  if (a.samples > 0) {
    device.launch(stream, "top_k_sample", a.samples, a);
    device.launch(stream, "top_k_guess", 1, a);
  }
  device.launch_blocks(stream, "top_k_take", a.tiles, &a, sizeof a);
  device.launch(stream, "top_k_restore", a.space, a);
  if (a.k > 0) {
    device.launch(stream, "top_k_histogram_0", whole, a);
    device.launch(stream, "top_k_histogram_1", whole, a);
    device.launch(stream, "top_k_histogram_2", whole, a);
  }
  const auto blocks = blocks_to_keep(device);
  device.launch_blocks(stream, "top_k_count", blocks, &a, sizeof a);
  device.launch_blocks(stream, "top_k_keep", blocks, &a, sizeof a);
}

}  // namespace

std::size_t top_k_scratch(const Device& device, std::size_t count, std::size_t k) {
  return scratch_bytes(device, count, guess(count, k).space);
}

std::size_t threshold_scratch(const Device& device, std::size_t count, std::size_t room) {
  return scratch_bytes(device, count, std::min(count, room));
}

void top_k(Device& device, StreamHandle stream, const Input& input, std::size_t k,
           const Entries& out, std::byte* scratch) {
  if (k == 0 || k > input.count || k > out.room)
    throw ArgumentError("k must be from 1 to the " + std::to_string(input.count) +
                        " elements and the room for " + std::to_string(out.room) +
                        " entries, not " + std::to_string(k));
  TopK a = arguments(input, out);
  const Guess made = guess(input.count, k);
  a.k = static_cast<u32>(k);
  a.samples = static_cast<u32>(made.samples);
  a.rank = static_cast<u32>(made.rank);
  a.space = static_cast<u32>(made.space);
  Layout layout(scratch);
  set_scratch(device, a, layout);
  select(device, stream, a);
}

void threshold(Device& device, StreamHandle stream, const Input& input, float least,
               const Entries& out, std::byte* scratch) {
  if (!(least > 0) || !std::isfinite(least))
    throw ArgumentError("a threshold must be positive and finite as a float32, not " +
                        std::to_string(least));
  if (input.count == 0) {
    device.fill(stream, out.count, 0, sizeof *out.count);
    return;
  }
  TopK a = arguments(input, out);
  a.least = std::bit_cast<u32>(least);
  a.space = static_cast<u32>(std::min<std::size_t>(input.count, out.room));
  Layout layout(scratch);
  set_scratch(device, a, layout);
  select(device, stream, a);
}

}  // namespace ronde::cuda
