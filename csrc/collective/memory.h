// Small helpers of the communicator's files.
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

namespace ronde {

inline void copy(Buffer to, ConstBuffer from) {
  if (to.data != from.data && from.bytes) copy_bytes(to.data, from.data, from.bytes);
}

template <class T>
Buffer buffer_of(std::span<T> values) {
  return {reinterpret_cast<std::byte*>(values.data()), values.size_bytes(), {}};
}

inline Buffer chunk_of(Buffer data, const Range& chunk) {
  return data.slice(chunk.offset, chunk.count);
}

inline Element element_of(const Reduction& reduction) {
  return {size_of(reduction.dtype), reduction.dtype, reduction.op};
}

inline std::size_t bytes_of(std::span<const Piece> pieces) {
  std::size_t bytes = 0;
  for (const auto& piece : pieces) bytes += piece.input.bytes;
  return bytes;
}

/// The packed pieces, back to where their results belong.
inline void unpack(std::span<const Piece> pieces, Buffer data) {
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
