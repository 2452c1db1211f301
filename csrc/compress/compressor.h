// What all compressors have in common.
//
// A compressor turns float32 values into a payload of fewer bytes, and a payload into values. It
// holds its parameters and no state: the same values, residual and seed give the same payload on
// every processor, however they are cut at multiples of the grain. A new one is one file here and
// one line in the table (table.cc).
//
// Nouns:
//   payload   the bytes of a span of values; a decoder takes any bytes at all and throws where they
//             are none of its own payloads, without reading or writing outside
//   residual  what the payloads so far have left out (error feedback: Seide et al. 2014,
//             Karimireddy et al. 2019): it is added to the values before they are encoded, and
//             then becomes what this payload leaves out
//   grain     the number of elements at whose multiples vectors may be cut
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>

#include "kernels/codec.h"

namespace ronde {

class GpuSelection;

class Compressor {
 public:
  virtual ~Compressor() = default;

  virtual std::size_t grain() const = 0;

  /// The bytes of the payload of `count` values, at most.
  virtual std::size_t capacity(std::size_t count) const = 0;

  /// The bytes of the payload of a whole vector of `count` finite values, at most.
  virtual std::size_t capacity_of_whole(std::size_t count) const { return capacity(count); }

  /// For compressors whose payload depends on the whole vector: returns the compressor that encodes
  /// its spans. Null where this one does. It may update `residual` here, as encode() would.
  /// Afterwards each span is encoded once, in any order, with the same values and this residual.
  virtual std::shared_ptr<const Compressor> for_vector(std::span<const float> /*values*/,
                                                       std::span<float> /*residual*/) const {
    return nullptr;
  }

  /// The compressor that encodes sums of decoded values, without a residual, where sums are sent
  /// whole. Null where sums are encoded like values, with a residual.
  virtual const Compressor* for_sums() const { return nullptr; }

  /// For compressors whose payloads can be added: the offset in a payload at which the values
  /// to add begin (float32, up to the end). The payload of a sum then has the sums of these values,
  /// and the same bytes before them for the same key. Such a compressor encodes whole vectors.
  virtual std::optional<std::size_t> summable_offset() const { return std::nullopt; }

  /// Encodes `values` plus `residual` (as many elements, or empty for none), and stores what the
  /// payload leaves out in `residual`. Returns the length of the payload, at most capacity(). NaN
  /// and infinity are decoded as NaN or infinity, with a residual of zero. `draw.first` is a
  /// multiple of the grain.
  virtual std::size_t encode(std::span<const float> values, std::span<float> residual, Draw draw,
                             std::byte* payload) const = 0;

  /// The values of a payload, stored in `out` or added to it. Throws ArgumentError if this is no
  /// payload of so many values; `out` may then be written in part.
  virtual void decode(std::span<const std::byte> payload, std::span<float> out,
                      Store store) const = 0;

  /// The code of payloads whose length follows from the number of values, which a GPU encodes and
  /// decodes too (cuda/codec.h). Null where there is none.
  virtual const BlockCode* block_code() const { return nullptr; }

  /// How a GPU selects what a sparse payload sends (gpu_selection.h). Null where it cannot.
  virtual const GpuSelection* gpu_selection() const { return nullptr; }

  /// Whether payloads cannot hold all that float32 can: what is too large becomes infinite.
  virtual bool overflows() const { return false; }

  /// Whether the decoded values are right on average. If not, a residual is needed for what is left
  /// out again and again.
  virtual bool unbiased() const = 0;
};

}  // namespace ronde
