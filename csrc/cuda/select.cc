#include "cuda/select.h"

#include <limits>
#include <string>

#include "core/error.h"
#include "core/share.h"
#include "cuda/kernels/select.h"
#include "cuda/layout.h"

namespace ronde::cuda {
namespace {

constexpr unsigned kBlocksEach = 4;  // of a multiprocessor, for the kernels of block top-k
constexpr std::size_t kWord = 32;    // of a bitmap
constexpr std::size_t kMost = std::numeric_limits<u32>::max();

unsigned grid_of(const Device& device) {
  return static_cast<unsigned>(device.multiprocessors()) * kBlocksEach;
}

void check(const BlockRatio& of) {
  checked_ratio(of.ratio);
  if (of.block == 0 || of.block % kWord || of.block > (1 << 16))
    throw ArgumentError("a block of top-k must be a multiple of 32 elements, up to 65536, not " +
                        std::to_string(of.block));
}

void set_scratch(const Device& device, BlockTopK& a, Layout& layout) {
  const auto grid = grid_of(device);
  a.of_warps = layout.take<u32>(grid * (kThreads / 32));
  a.of_blocks = layout.take<u32>(grid);
  a.cuts = layout.take<Cut>(a.blocks);
}

u32 blocks_of(std::size_t block, std::size_t count) {
  return static_cast<u32>((count + block - 1) / block);
}

void check_count(std::size_t count) {
  if (count > kMost) throw ArgumentError("a device selects from less than 2^32 elements");
}

void check_parts(std::size_t parts, std::size_t count) {
  check_count(count);
  if (parts > count || (parts == 0) != (count == 0))
    throw ArgumentError("random-k draws from 1 to " + std::to_string(count) + " numbers, not " +
                        std::to_string(parts));
}

}  // namespace

std::size_t block_top_k_entries(const BlockRatio& of, std::size_t count) {
  check(of);
  return count / of.block * share(of.ratio, of.block) + share(of.ratio, count % of.block);
}

std::size_t block_top_k_scratch(const Device& device, const BlockRatio& of, std::size_t count) {
  check(of);
  BlockTopK a{};
  a.blocks = blocks_of(of.block, count);
  Layout layout(nullptr);
  set_scratch(device, a, layout);
  return layout.bytes();
}

void block_top_k(Device& device, StreamHandle stream, const Input& input, const BlockRatio& of,
                 const Entries& out, std::byte* scratch) {
  check(of);
  check_count(input.count);
  if (input.count == 0) {
    device.fill(stream, out.count, 0, sizeof *out.count);
    return;
  }
  BlockTopK a{};
  a.values = input.values;
  a.residual = input.residual;
  a.count = input.count;
  a.block = static_cast<u32>(of.block);
  a.blocks = blocks_of(of.block, input.count);
  a.k = static_cast<u32>(share(of.ratio, of.block));
  a.last_k = static_cast<u32>(share(of.ratio, input.count - (a.blocks - 1) * of.block));
  a.out = out;
  Layout layout(scratch);
  set_scratch(device, a, layout);
  const auto* const size = of.block <= kSmallBlock ? "small" : "large";
  for (const std::string step : {"find", "keep"})
    device.launch_blocks(stream, "block_top_k_" + step + "_" + size, grid_of(device), &a, sizeof a);
}

void random_k_encode(Device& device, StreamHandle stream, const Input& input, std::size_t parts,
                     std::uint64_t key, std::byte* payload) {
  check_parts(parts, input.count);
  device.fill(stream, payload, 0, sizeof key + parts * sizeof(float));
  const RandomKEncode a{.values = input.values,
                        .residual = input.residual,
                        .count = input.count,
                        .parts = parts,
                        .key = key,
                        .payload = reinterpret_cast<u32*>(payload)};
  device.launch(stream, "random_k_encode", input.count, a);
  device.launch(stream, "random_k_draw", parts, a);
}

void random_k_decode(Device& device, StreamHandle stream, const std::byte* payload,
                     std::size_t parts, std::span<float> out, Store store) {
  check_parts(parts, out.size());
  if (store == Store::copy) device.fill(stream, out.data(), 0, out.size_bytes());
  const RandomKDecode a{.payload = reinterpret_cast<const u32*>(payload),
                        .count = out.size(),
                        .parts = parts,
                        .out = out.data()};
  device.launch(stream, "random_k_decode", parts, a);
}

}  // namespace ronde::cuda
