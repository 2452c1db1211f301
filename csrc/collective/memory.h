// Small helpers of the routes.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "collective/execution.h"
#include "core/buffer.h"
#include "core/pieces.h"
#include "core/reduction.h"
#include "kernels/kernels.h"
#include "schedule/schedule.h"
#include "trace/timeline.h"

namespace ronde {

inline void copy(Buffer to, ConstBuffer from) {
  if (to.data != from.data && from.bytes) copy_bytes(to.data, from.data, from.bytes);
}

template <class T>
Buffer buffer_of(std::span<T> values) {
  return {reinterpret_cast<std::byte*>(values.data()), values.size_bytes(), {}};
}

inline std::span<const float> floats_of(ConstBuffer data) {
  return {reinterpret_cast<const float*>(data.data), data.bytes / sizeof(float)};
}
inline std::span<float> floats_of(Buffer data) {
  return {reinterpret_cast<float*>(data.data), data.bytes / sizeof(float)};
}

inline Buffer chunk_of(Buffer data, const Range& chunk) {
  return data.slice(chunk.offset, chunk.count);
}

inline Element element_of(const Reduction& reduction) {
  return {size_of(reduction.dtype), reduction.dtype, reduction.op, reduction.averages_halves()};
}

/// Of a reduction that takes several steps: what the reduction of the first `ranks` ranks does. Its
/// result is a sum, or the mean of an average of halves.
inline Reduction before(Reduction reduction, int ranks) {
  const bool mean = reduction.averages_halves();
  if (mean) reduction.prescale = 1.0;
  reduction.divisor = mean ? ranks : 1.0;
  reduction.postscale = 1.0;
  return reduction;
}

/// What the steps after it do.
inline Reduction after(Reduction reduction, int ranks) {
  if (reduction.averages_halves()) {
    reduction.postscale *= reduction.prescale;
    reduction.divisor /= ranks;
  }
  reduction.prescale = 1.0;
  return reduction;
}

inline std::size_t elements_of(const Reduction& reduction, ConstBuffer data) {
  return data.bytes / size_of(reduction.dtype);
}

/// The same in place, where no further rank has to be reduced.
inline void finish(const Reduction& reduction, int ranks, Buffer data) {
  postscale(after(reduction, ranks), data.data, elements_of(reduction, data));
}

inline std::size_t bytes_of(std::span<const Piece> pieces) {
  std::size_t bytes = 0;
  for (const auto& piece : pieces) bytes += piece.input.bytes;
  return bytes;
}

/// The pieces' inputs, one after another.
inline void pack(const Recorder& recorder, std::span<const Piece> pieces, Buffer data) {
  const Span span(recorder, "pack", {.bytes = data.bytes});
  std::size_t offset = 0;
  for (const auto& piece : pieces) {
    copy(data.slice(offset, piece.input.bytes), piece.input);
    offset += piece.input.bytes;
  }
}

/// The packed pieces, back to where their results belong.
inline void unpack(const Recorder& recorder, std::span<const Piece> pieces, Buffer data) {
  const Span span(recorder, "unpack", {.bytes = data.bytes});
  std::size_t offset = 0;
  for (const auto& piece : pieces) {
    copy(piece.output, data.slice(offset, piece.output.bytes));
    offset += piece.output.bytes;
  }
}

/// Of rows of so many bytes.
inline Chunks bytes_of(std::span<const std::size_t> rows, std::size_t row_bytes) {
  std::vector<std::size_t> bytes(rows.begin(), rows.end());
  for (auto& count : bytes) count *= row_bytes;
  return Chunks::of(bytes);
}

}  // namespace ronde
