#include "cuda/low_rank.h"

#include <algorithm>
#include <bit>
#include <string>

#include "core/error.h"
#include "cuda/kernels/low_rank.h"
#include "cuda/layout.h"
#include "cuda/scratch.h"

namespace ronde::cuda {
namespace {

static_assert(kMostVectors == kMaxRank);

constexpr std::size_t kWarps = kThreads / 32;

/// So many, each `each` times, in threads.
std::size_t blocks_of(std::size_t items, std::size_t each) {
  return (items + each - 1) / each * kThreads;
}

void check_rank(std::size_t rank) {
  if (rank < 1 || rank > kMaxRank)
    throw ArgumentError("the rank must be 1 to " + std::to_string(kMaxRank) + ", not " +
                        std::to_string(rank));
}

}  // namespace

LowRank::LowRank(Device& device, const LowRankShape& shape) : device_(device), shape_(shape) {
  check_rank(shape.rank);
}

void LowRank::project(StreamHandle stream, const float* matrix, float* residual, const float* right,
                      float* left) const {
  const auto [rows, columns, rank] = shape_;
  if (columns == 0) return device_.fill(stream, left, 0, rank * rows * sizeof(float));
  if (rows == 0) return;
  const std::size_t tiles = (columns + kTileColumns - 1) / kTileColumns;
  const std::size_t across = std::bit_ceil(std::min(tiles, kWarps));
  device_.launch(stream, "low_rank_project", blocks_of(rows, kWarps / across * kWarpRows),
                 Project{rows, columns, static_cast<u32>(rank), static_cast<u32>(across), matrix,
                         residual, right, left});
}

void LowRank::back_project(StreamHandle stream, const float* matrix, const float* left,
                           float* right) const {
  const auto [rows, columns, rank] = shape_;
  if (rows == 0) return device_.fill(stream, right, 0, rank * columns * sizeof(float));
  if (columns == 0) return;
  device_.launch(stream, "low_rank_back_project", blocks_of(columns, kBlockColumns),
                 BackProject{rows, columns, static_cast<u32>(rank), matrix, left, right});
}

void LowRank::reconstruct(StreamHandle stream, const Sum& sum, float* out, float* residual) const {
  if (sum.ranks == 0) throw ArgumentError("there is at least one rank");
  const auto [rows, columns, rank] = shape_;
  if (rows == 0 || columns == 0) return;
  const std::size_t wide = std::clamp<std::size_t>(std::bit_ceil(columns), 32, kThreads);
  const std::size_t across = (columns + wide - 1) / wide, tall = kThreads / wide * kThreadRows;
  device_.launch(stream, "low_rank_reconstruct", blocks_of(rows, tall) * across,
                 Reconstruct{rows, columns, static_cast<u32>(rank), static_cast<u32>(wide),
                             sum.left, sum.right, sum.factor, 1.0f / static_cast<float>(sum.ranks),
                             residual, out, sum.finite, sum.matrix});
}

void orthogonalise(Device& device, StreamHandle stream, const Vectors& vectors,
                   Orthogonalised* found) {
  check_rank(vectors.count);
  const auto count = static_cast<unsigned>(vectors.count);
  const std::size_t bytes = vectors.count * vectors.length * sizeof(float);
  const bool in_place = vectors.from == vectors.to;
  double* scratch = nullptr;
  float* there = nullptr;
  const auto layout = [&](std::byte* begin) {
    Layout layout(begin);
    scratch = layout.take<double>(vectors.length);
    there = in_place ? vectors.to : layout.take<float>(vectors.count * vectors.length);
    return layout.bytes();
  };
  const auto memory = ScratchPool::of(device, Memory::Kind::device).take(stream, layout(nullptr));
  layout(memory.data());
  if (!in_place) device.copy(stream, there, vectors.from, bytes);
  device.fill(stream, found, 0, sizeof *found);
  const Orthogonalise arguments{there, count, vectors.length, scratch, &found->finite};
  device.launch_blocks(stream, "orthogonalise_vectors", 1, &arguments, sizeof arguments);
  const Keep kept{there, vectors.to, vectors.length, &found->finite, &found->zeros};
  device.launch_blocks(stream, "low_rank_keep", count, &kept, sizeof kept);
}

}  // namespace ronde::cuda
