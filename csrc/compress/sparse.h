// Compressors that send some of the values, exactly, and their positions. They have the payload in
// common:
//
//   header    the form and the number of entries (32 bits each)
//   index     the positions of the entries, in the form that takes the fewest bytes:
//               offsets  the number of entries in each block of 65536 elements (32 bits), then all
//                        offsets in their blocks (16 bits), filled up with 0 to 4 bytes
//               bitmap   a bit for each element, filled up with 0 to 4 bytes
//               dense    nothing: there is an entry for each element
//   entries   float32, in the order of their positions
//
// What is not sent is decoded as 0 and stays in the residual as it is; what is sent leaves 0 there.
// So sent + residual = input exactly, the input being the value plus the residual before, rounded
// once. NaN and infinity are always sent, whatever the selection.
//
// Sums are sent whole: what all ranks have selected is not selected from again. A sum of sparse
// payloads fills up with the ranks, and its payload becomes dense by itself (SparCML, Renggli et
// al. 2019).
#pragma once

#include <cstdint>
#include <span>

#include "compress/compressor.h"
#include "compress/picker.h"
#include "core/share.h"
#include "kernels/kernels.h"

namespace ronde {

inline constexpr std::size_t kGrain = 32;  // a word of a bitmap

/// By itself, encode() takes a span for a whole vector, to which it fits.
class Sparse : public Compressor {
 public:
  std::size_t grain() const override { return kGrain; }
  std::size_t capacity(std::size_t count) const override;
  std::size_t encode(std::span<const float> values, std::span<float> residual, Draw draw,
                     std::byte* payload) const override;
  void decode(std::span<const std::byte> payload, std::span<float> out, Store store) const override;
  const Compressor* for_sums() const override;
  bool unbiased() const override { return false; }

 protected:
  explicit Sparse(const KernelTable& kernels) : kernels_(kernels) {}

  /// The length of a payload of so many entries.
  static std::size_t length(std::size_t entries, std::size_t count);

  /// Writes the payload of `count` values from position `first` on, with these entries.
  /// Returns its length.
  static std::size_t write_payload(const EntrySpan& entries, std::uint64_t first, std::size_t count,
                                   std::byte* payload);

  const KernelTable& kernels_;
};

/// Those that know of each value by itself, or with its block, whether it is sent.
class Selection : public Sparse {
 public:
  std::size_t encode(std::span<const float> values, std::span<float> residual, Draw draw,
                     std::byte* payload) const override;

 protected:
  using Sparse::Sparse;

  /// Picks what is sent of a span.
  virtual void select(Picker& picker) const = 0;
};

}  // namespace ronde
