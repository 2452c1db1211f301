// Small helpers of the communicator's files.
#pragma once

#include <cstddef>
#include <cstring>
#include <span>
#include <vector>

#include "collective/execution.h"
#include "core/buffer.h"
#include "core/reduction.h"
#include "schedule/schedule.h"

namespace ronde {

inline void copy(Buffer to, ConstBuffer from) {
  if (to.data != from.data && from.bytes) std::memcpy(to.data, from.data, from.bytes);
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

/// Of rows of so many bytes.
inline Chunks bytes_of(std::span<const std::size_t> rows, std::size_t row_bytes) {
  std::vector<std::size_t> bytes(rows.begin(), rows.end());
  for (auto& count : bytes) count *= row_bytes;
  return Chunks::of(bytes);
}

}  // namespace ronde
