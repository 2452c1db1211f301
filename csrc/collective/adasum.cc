#include "collective/adasum.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

#include "collective/hierarchical.h"
#include "collective/memory.h"
#include "collective/network.h"
#include "collective/peers.h"

namespace ronde {
namespace {

// ------------------------------------------------------------------------------ the mathematics

/// Of two rows, whose result takes the place of the left one.
struct Merge {
  int left, right;
};

/// The merges of all levels, whose result is row 0. Neighbours are merged. The first level makes
/// the rows a power of two, so that none counts more than twice as much as another.
std::vector<std::vector<Merge>> levels_of(int size) {
  std::vector<int> rows(size);
  std::iota(rows.begin(), rows.end(), 0);
  std::vector<std::vector<Merge>> levels;
  while (rows.size() > 1) {
    const std::size_t surplus = rows.size() - std::bit_floor(rows.size());
    const std::size_t pairs = surplus > 0 ? surplus : rows.size() / 2;
    auto& level = levels.emplace_back();
    for (std::size_t i = 0; i < pairs; ++i) {
      level.push_back({rows[i], rows[i + 1]});
      rows.erase(rows.begin() + static_cast<std::ptrdiff_t>(i) + 1);
    }
  }
  return levels;
}

struct Coefficients {
  double left = 1.0, right = 1.0;
};

/// A vector has no direction if it is zero, or next to nothing beside the other (the coefficient
/// might not be a float32 then). Vectors whose norm is not finite have none either. These are
/// added.
Coefficients coefficients_of(const Dots& dots) {
  constexpr double kNegligible = 0x1p-200;  // of the square of the other's norm
  const auto& [left, both, right] = dots;
  const bool directed = std::isfinite(left) && std::isfinite(right) && left > kNegligible * right &&
                        right > kNegligible * left;
  if (!directed) return {};
  return {1.0 - both / (2.0 * left), 1.0 - both / (2.0 * right)};
}

// ------------------------------------------------------------------------------ parts

/// A range cut as evenly as possible.
Range part_of(const Range& whole, int number, int parts) {
  const auto i = static_cast<std::size_t>(number), all = static_cast<std::size_t>(parts);
  const std::size_t each = whole.count / all, more = whole.count % all;
  return {whole.where, whole.offset + i * each + std::min(i, more), each + (i < more)};
}

/// How arrays are cut: into slices, one for each rank of a machine, and these into parts, one for
/// each peer. Joined in one vector, the parts of a slice and of a peer lie together.
class Cut {
 public:
  Cut(std::span<const Piece> pieces, std::size_t item, int slices, int peers)
      : pieces_(pieces), item_(item), slices_(slices), peers_(peers) {}

  /// The arrays as one vector, and the memory for its result.
  Piece join(Operation& operation) const {
    if (pieces_.size() == 1) return pieces_[0];
    const Buffer vector = operation.allocate(bytes_of(pieces_)).buffer();
    for_parts([&](std::size_t offset, const Piece& part) {
      copy(vector.slice(offset, part.input.bytes), part.input);
    });
    return {vector, vector};
  }

  /// Its result, back to where it belongs.
  void split(const Piece& joined) const {
    if (pieces_.size() == 1) return;
    for_parts([&](std::size_t offset, const Piece& part) {
      copy(part.output, joined.output.slice(offset, part.output.bytes));
    });
  }

  /// In elements: the slices of the vector.
  Chunks slices() const {
    std::vector<std::size_t> counts(slices_);
    for (int slice = 0; slice < slices_; ++slice)
      for (const auto& piece : pieces_) counts[slice] += range(piece, slice).count;
    return Chunks::of(counts);
  }

  /// In bytes: the rows of the peers in a slice.
  Chunks rows(int slice) const {
    std::vector<std::size_t> bytes(peers_);
    for (int peer = 0; peer < peers_; ++peer)
      for (const auto& piece : pieces_) bytes[peer] += item_ * range(piece, slice, peer).count;
    return Chunks::of(bytes);
  }

  /// In elements: the parts of the arrays in a row.
  std::vector<std::size_t> parts(int slice, int peer) const {
    std::vector<std::size_t> counts;
    for (const auto& piece : pieces_) counts.push_back(range(piece, slice, peer).count);
    return counts;
  }

 private:
  Range range(const Piece& piece, int slice) const {
    return part_of({Where::data, 0, piece.input.bytes / item_}, slice, slices_);
  }
  Range range(const Piece& piece, int slice, int peer) const {
    return part_of(range(piece, slice), peer, peers_);
  }

  /// Calls `visit(offset, part)` for all parts in the order of the vector.
  template <class Visit>
  void for_parts(Visit visit) const {
    std::size_t offset = 0;
    for (int slice = 0; slice < slices_; ++slice) {
      for (int peer = 0; peer < peers_; ++peer) {
        for (const auto& piece : pieces_) {
          const Range part = range(piece, slice, peer);
          const std::size_t begin = part.offset * item_, bytes = part.count * item_;
          visit(offset, Piece{piece.input.slice(begin, bytes), piece.output.slice(begin, bytes)});
          offset += bytes;
        }
      }
    }
  }

  const std::span<const Piece> pieces_;
  const std::size_t item_;
  const int slices_, peers_;
};

// ------------------------------------------------------------------------------ Adasum

/// What this peer has of all ranks.
class Rows {
 public:
  Rows(Operation& operation, DType dtype, std::vector<std::size_t> parts, int ranks)
      : dtype_(dtype),
        parts_(std::move(parts)),
        bytes_(std::accumulate(parts_.begin(), parts_.end(), std::size_t{0}) * size_of(dtype)),
        rows_(operation.allocate(bytes_ * static_cast<std::size_t>(ranks)).buffer()),
        dots_(operation.zeros<Dots>(parts_.size() * static_cast<std::size_t>(ranks / 2))) {}

  Buffer all() const { return rows_; }
  Buffer result() const { return rows_.slice(0, bytes_); }

  /// The dot products of the parts, for all merges of a level.
  Buffer dots(std::span<const Merge> level) const {
    std::size_t filled = 0;
    for (const auto& [left, right] : level) {
      for_parts([&](std::size_t offset, std::size_t count) {
        dots_[filled++] = ronde::dots(dtype_, row(left) + offset, row(right) + offset, count);
      });
    }
    return buffer_of(dots_.first(filled));
  }

  /// By the dot products of the arrays, which have taken the place of those of the parts.
  void merge(std::span<const Merge> level) const {
    std::size_t used = 0;
    for (const auto& [left, right] : level) {
      for_parts([&](std::size_t offset, std::size_t count) {
        const auto by = coefficients_of(dots_[used++]);
        std::byte* const result = row(left) + offset;
        add_weighted(dtype_, result, {result, by.left}, {row(right) + offset, by.right}, count);
      });
    }
  }

 private:
  std::byte* row(int rank) const { return rows_.data + static_cast<std::size_t>(rank) * bytes_; }

  template <class Visit>
  void for_parts(Visit visit) const {
    std::size_t offset = 0;
    for (const auto count : parts_) {
      visit(offset, count);
      offset += count * size_of(dtype_);
    }
  }

  const DType dtype_;
  const std::vector<std::size_t> parts_;
  const std::size_t bytes_;  // of a row
  const Buffer rows_;
  const std::span<Dots> dots_;
};

/// Merges a slice of the joined arrays, in `vector`, with those of the other peers.
Task<> merge(Peers& peers, Operation& operation, const Cut& cut, int slice, Piece vector,
             Reduction reduction) {
  const Chunks chunks = cut.rows(slice);
  const Rows rows(operation, reduction.dtype, cut.parts(slice, peers.rank()), peers.size());
  const Buffer all = rows.all(), result = rows.result();
  co_await peers.scatter(vector.input, chunks, all);
  prescale(reduction, all.data, elements_of(reduction, all));
  const auto levels = levels_of(peers.size());
  for (const auto& level : levels) {
    const Buffer dots = rows.dots(level);
    co_await peers.add(dots);
    rows.merge(level);
  }
  postscale(reduction, result.data, elements_of(reduction, result));
  co_await peers.gather(result, chunks, vector.output);
}

}  // namespace

Task<> adasum_over_network(Lane& lane, Operation& operation, std::span<const Piece> pieces,
                           Reduction reduction, std::string_view algorithm) {
  const Cut cut(pieces, size_of(reduction.dtype), 1, lane.size());
  co_await lane.begin(operation);
  co_await know_link(lane, operation, bytes_of(pieces));
  const Piece vector = cut.join(operation);
  MessagePeers peers(lane, operation, lane.transport(), false, algorithm);
  co_await merge(peers, operation, cut, 0, vector, reduction);
  cut.split(vector);
}

Task<> adasum_in_memory(Lane& lane, Operation& operation, std::span<const Piece> pieces,
                        Reduction reduction) {
  const Cut cut(pieces, size_of(reduction.dtype), 1, lane.size());
  lane.takes(operation, Counter::bytes_in_shared_memory, bytes_of(pieces));
  const Piece vector = cut.join(operation);
  MemoryPeers peers(lane, operation);
  co_await merge(peers, operation, cut, 0, vector, reduction);
  cut.split(vector);
}

Task<> adasum_over_machines(Lane& lane, Operation& operation, std::span<const Piece> pieces,
                            Reduction reduction) {
  const std::size_t bytes = bytes_of(pieces);
  if (needs_link(lane, bytes)) {
    co_await lane.agree(operation);
    co_await know_link(lane, operation, bytes);
  }
  const int local = lane.board()->size();
  Reduction average{.dtype = reduction.dtype, .prescale = reduction.prescale};
  average.divisor = local;
  Reduction between = reduction;
  between.prescale = 1.0;
  const Cut cut(pieces, size_of(reduction.dtype), local, lane.across()->size());
  const Piece vector = cut.join(operation);
  Slices slices(lane, operation, {&vector, 1}, average, cut.slices());
  const Extremes said = co_await slices.reduce();
  co_await lane.agree_by_messages(operation, said);
  MessagePeers peers(lane, operation, *lane.across(), true, std::string_view());
  const Piece own{slices.own(), slices.own()};
  const int slice = lane.board()->rank();
  co_await merge(peers, operation, cut, slice, own, between);
  co_await slices.spread();
  cut.split(vector);
}

}  // namespace ronde
