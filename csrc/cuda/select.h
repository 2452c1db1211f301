// Block top-k and random-k on a device, with the bits of the processor's (compress/top_k.h,
// compress/random_k.h). top_k.h has what input, residual and scratch memory are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "cuda/top_k.h"
#include "kernels/codec.h"

namespace ronde::cuda {

struct BlockRatio {
  double ratio;       // above 0, at most 1
  std::size_t block;  // elements, a multiple of 32 up to 65536
};

/// The entries that there are at most, unless more are NaN or infinite.
std::size_t block_top_k_entries(const BlockRatio& of, std::size_t count);

std::size_t block_top_k_scratch(const Device& device, const BlockRatio& of, std::size_t count);

/// Enqueues the selection of the k = share(ratio, block) largest of each block, of equal ones the
/// first. Where there is no room for an entry, a finite one stays in the residual.
void block_top_k(Device& device, StreamHandle stream, const Input& input, const BlockRatio& of,
                 const Entries& out, std::byte* scratch);

/// Enqueues the encoding of one number of each of the `parts` of a vector, drawn by the key: the
/// payload is the key (64 bits) and the numbers, at a multiple of 4 bytes. `parts` is from 1 to the
/// count, or 0 if that is 0.
void random_k_encode(Device& device, StreamHandle stream, const Input& input, std::size_t parts,
                     std::uint64_t key, std::byte* payload);

/// Enqueues the decoding of such a payload, whose numbers may be sums.
void random_k_decode(Device& device, StreamHandle stream, const std::byte* payload,
                     std::size_t parts, std::span<float> out, Store store);

}  // namespace ronde::cuda
