// The entries that a device selects of a whole vector, with the bits of the processor's
// (compress/picker.h has the nouns).
//
// The input is values + residual, rounded once. The residual becomes what is left out: 0 where an
// entry was made, and where the input is NaN or infinite, which is always selected. Where there is
// no room for an entry, a finite one stays in the residual.
#pragma once

#include <cstddef>

#include "cuda/device.h"
#include "cuda/kernels/selection.h"

namespace ronde::cuda {

/// A vector in memory of a device. Throws ArgumentError where it is used if it has 2^32 elements or
/// more.
struct Input {
  const float* values;
  float* residual;  // null: none
  std::size_t count;
};

/// The bytes of scratch memory that a call needs: it begins at a multiple of 256 bytes, and what is
/// in it does not matter before and after.
std::size_t top_k_scratch(const Device& device, std::size_t count, std::size_t k);
std::size_t threshold_scratch(const Device& device, std::size_t count, std::size_t room);

/// Enqueues the selection of the k largest by absolute value, of equal ones the first: exactly k
/// unless more are NaN or infinite. k is from 1 to count, and there is room for as many entries.
/// It is fast as memory where values and residual stand alike in their packets of 16 bytes.
void top_k(Device& device, StreamHandle stream, const Input& input, std::size_t k,
           const Entries& out, std::byte* scratch);

/// Enqueues the selection of each |x| >= least, which is positive and finite, or not finite itself.
void threshold(Device& device, StreamHandle stream, const Input& input, float least,
               const Entries& out, std::byte* scratch);

}  // namespace ronde::cuda
