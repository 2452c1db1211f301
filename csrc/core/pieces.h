// Memory in pieces that is reduced as if it were one vector.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include "core/buffer.h"

namespace ronde {

/// Where a part of the vector comes from and where its result goes. Both may be the same, or the
/// output empty; different pieces do not overlap.
struct Piece {
  ConstBuffer input;
  Buffer output;
};

class Pieces {
 public:
  explicit Pieces(std::span<const Piece> pieces) : pieces_(pieces.begin(), pieces.end()) {
    std::size_t end = 0;
    for (const auto& piece : pieces_) ends_.push_back(end += piece.input.bytes);
  }

  std::size_t bytes() const { return ends_.empty() ? 0 : ends_.back(); }

  /// The memory as a whole, if it is in one piece.
  const Piece* whole() const { return pieces_.size() == 1 ? &pieces_.front() : nullptr; }

  /// Calls `visit(offset, piece)` for the parts of pieces that make up bytes `begin` to `end` of
  /// the vector; `offset` is where a part begins in it.
  template <class Visit>
  void for_range(std::size_t begin, std::size_t end, Visit visit) const {
    auto i = static_cast<std::size_t>(std::upper_bound(ends_.begin(), ends_.end(), begin) -
                                      ends_.begin());
    while (begin < end) {
      const auto& [input, output] = pieces_[i];
      const std::size_t start = ends_[i] - input.bytes;
      const std::size_t length = std::min(end, ends_[i]) - begin;
      const auto part = output.bytes ? output.slice(begin - start, length) : Buffer{};
      if (length) visit(begin, Piece{input.slice(begin - start, length), part});
      begin = ends_[i++];
    }
  }

 private:
  std::vector<Piece> pieces_;
  std::vector<std::size_t> ends_;
};

}  // namespace ronde
