// Walking over marks; kernels/select.h has the nouns.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "kernels/select.h"

namespace ronde {

/// Calls f(place) for every mark, in order.
template <class F>
void for_each_mark(const std::uint32_t* marks, std::size_t count, F f) {
  for (std::size_t i = 0; i < count; i += kMarks) {
    for (std::uint32_t word = marks[i / kMarks]; word; word &= word - 1)
      f(i + static_cast<std::size_t>(std::countr_zero(word)));
  }
}

}  // namespace ronde
