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
//             Karimireddy et al. 2019): it is added to the values before they are encoded, and is
//             then what is left out now
//   grain     vectors are cut at multiples of so many elements
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>

#include "kernels/codec.h"

namespace ronde {

class Compressor {
 public:
  virtual ~Compressor() = default;

  virtual std::size_t grain() const = 0;

  /// The bytes of the payload of `count` values, at most.
  virtual std::size_t capacity(std::size_t count) const = 0;

  /// The same where they are a whole vector of finite values.
  virtual std::size_t capacity_of_whole(std::size_t count) const { return capacity(count); }

  /// What encodes the spans of this vector, if what becomes of a value depends on all of the
  /// vector; null if this compressor does. `residual` is as for encode(), and may be changed at
  /// once to what encode() would leave. The spans are then encoded in any order, each of them once,
  /// with the same values and the residual as it is.
  virtual std::shared_ptr<const Compressor> fitted(std::span<const float> /*values*/,
                                                   std::span<float> /*residual*/) const {
    return nullptr;
  }

  /// What encodes sums of decoded values, without a residual, if they are to be sent whole; null if
  /// they are encoded like values, with one.
  virtual const Compressor* for_sums() const { return nullptr; }

  /// Where in a payload the numbers begin (float32, up to its end), if those of the payload of a
  /// sum are the sums of those of the payloads; all that stands before them is the same for the
  /// same key. Such a compressor encodes vectors as a whole.
  virtual std::optional<std::size_t> numbers_at() const { return std::nullopt; }

  /// Encodes `values`, with the residual if there is one (of as many elements, else empty), which
  /// becomes what is left out. Returns the length of the payload, at most capacity(). Where there
  /// is NaN or infinity, so there is in the decoded values, and the residual is zero. `draw.first`
  /// is a multiple of the grain.
  virtual std::size_t encode(std::span<const float> values, std::span<float> residual, Draw draw,
                             std::byte* payload) const = 0;

  /// The values of a payload, stored in `out` or added to it. Throws ArgumentError if this is no
  /// payload of so many values; `out` may then be written in part.
  virtual void decode(std::span<const std::byte> payload, std::span<float> out,
                      Store store) const = 0;

  /// Whether payloads cannot hold all that float32 can: what is too large becomes infinite.
  virtual bool overflows() const { return false; }

  /// Whether the decoded values are right on average. If not, a residual is needed for what is left
  /// out again and again.
  virtual bool unbiased() const = 0;
};

}  // namespace ronde
