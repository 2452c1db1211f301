#include "compress/cut.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <vector>

#include "compress/marks.h"
#include "core/round.h"

namespace ronde {
namespace {

constexpr std::int32_t kBelowAll = -1, kAboveAll = 0x7fffffff;
constexpr std::size_t kPiece = 1 << 14;  // its marks are 2 KiB, on the stack

/// The k-th largest is greater than `low` and at most `high`.
struct Bracket {
  std::int32_t low = kBelowAll, high = kAboveAll;
};

/// values + residual, in pieces.
class Input {
 public:
  Input(std::span<const float> values, std::span<const float> residual, const KernelTable& kernels)
      : values_(values), residual_(residual), kernels_(kernels) {}

  std::size_t count() const { return values_.size(); }

  float operator[](std::size_t place) const {
    return residual_.empty() ? values_[place] : values_[place] + residual_[place];
  }

  /// Calls f(begin, length, marks, number of marks) for each piece, with what is above marked,
  /// until f says no. `sums`, unless null, gets the values of the piece.
  template <class F>
  void for_each_piece(std::int32_t above, float* sums, F f) const {
    std::uint32_t marks[mark_words(kPiece)];
    for (std::size_t begin = 0; begin < count(); begin += kPiece) {
      const std::size_t length = std::min(kPiece, count() - begin);
      const float* const left = residual_.empty() ? nullptr : residual_.data() + begin;
      const std::size_t found =
          kernels_.select.mark(values_.data() + begin, left, sums, length, above, marks);
      if (!f(begin, length, marks, found)) return;
    }
  }

  std::size_t count_above(std::int32_t above) const {
    std::size_t total = 0;
    for_each_piece(above, nullptr,
                   [&](std::size_t, std::size_t, const std::uint32_t*, std::size_t found) {
                     total += found;
                     return true;
                   });
    return total;
  }

  /// Behind the last of the first `ties` elements of this magnitude.
  std::uint64_t end_of_ties(std::int32_t tie, std::size_t ties) const {
    std::uint64_t end = 0;
    for_each_piece(
        tie - 1, nullptr,
        [&](std::size_t begin, std::size_t length, const std::uint32_t* marks, std::size_t) {
          for_each_mark(marks, length, [&](std::size_t place) {
            if (ties == 0 || magnitude((*this)[begin + place]) != tie) return;
            --ties;
            end = begin + place + 1;
          });
          return ties > 0;
        });
    return end;
  }

 private:
  std::span<const float> values_, residual_;
  const KernelTable& kernels_;
};

/// The marks of the first so many elements of a word.
std::uint32_t first_marks(std::size_t count) { return count < kMarks ? (1u << count) - 1 : ~0u; }

/// A magnitude, and how many are greater and equal.
struct Found {
  std::int32_t magnitude;
  std::size_t greater, equal;
};

/// The k-th largest of the input, which is in the bracket.
Found bisect(const Input& input, std::size_t k, Bracket bracket) {
  auto [low, high] = bracket;
  while (high > low + 1) {
    const std::int32_t middle = std::midpoint(low, high);
    (input.count_above(middle) >= k ? low : high) = middle;
  }
  const std::size_t greater = input.count_above(high);
  return {high, greater, input.count_above(low) - greater};
}

/// From a sample: the k-th largest lies between, but for one case in some hundred.
Bracket guess(const Input& input, std::size_t k) {
  constexpr std::size_t kSample = 1 << 14;
  const std::size_t stride = input.count() / kSample;
  std::vector<std::int32_t> sample(kSample);
  for (std::size_t i = 0; i < kSample; ++i) sample[i] = magnitude(input[i * stride]);
  const auto of_rank = [&](double rank) {
    const auto place = sample.begin() + static_cast<std::ptrdiff_t>(rank);
    std::nth_element(sample.begin(), place, sample.end(), std::greater<>());
    return *place;
  };
  const double rank = static_cast<double>(k) / static_cast<double>(input.count()) * kSample;
  const double slack = 3 * std::sqrt(rank) + 3;
  Bracket bracket;
  if (rank + slack < kSample) bracket.low = of_rank(rank + slack) - 1;
  if (rank - slack >= 0) bracket.high = of_rank(rank - slack);
  return bracket;
}

/// The k-th largest, among what lies in the bracket where that is not too much.
Found find(const Input& input, std::size_t k, Bracket bracket, const KernelTable& kernels) {
  std::size_t above = 0;  // the bracket
  std::vector<float> within, sums(kPiece), upper(kPiece);
  std::uint32_t marks_of_upper[mark_words(kPiece)];
  const std::size_t most = input.count() / 8 + kPiece;
  input.for_each_piece(
      bracket.low, sums.data(),
      [&](std::size_t, std::size_t length, const std::uint32_t* marks, std::size_t found) {
        kernels.select.pick(sums.data(), length, marks, upper.data());
        const std::size_t beyond = kernels.select.mark(upper.data(), nullptr, nullptr, found,
                                                       bracket.high, marks_of_upper);
        above += beyond;
        for (std::size_t i = 0; i < found; i += kMarks)
          marks_of_upper[i / kMarks] ^= first_marks(found - i);
        const std::size_t kept = within.size();
        within.resize(kept + found - beyond);
        kernels.select.pick(upper.data(), found, marks_of_upper, within.data() + kept);
        return within.size() <= most;
      });
  if (within.size() <= most && above < k && k <= above + within.size()) {
    Found found = bisect(Input(within, {}, kernels), k - above, bracket);
    found.greater += above;
    return found;
  }
  if (input.count_above(bracket.low) < k)
    bracket = {.high = bracket.low};
  else if (input.count_above(bracket.high) >= k)
    bracket = {.low = bracket.high};
  return bisect(input, k, bracket);
}

}  // namespace

Cut cut_of(std::span<const float> values, std::span<const float> residual, std::size_t k,
           const KernelTable& kernels) {
  const Input input(values, residual, kernels);
  if (k == 0) return {kAboveAll, 0};
  if (k == input.count()) return {kBelowAll, 0};
  const Found found =
      input.count() <= kPiece ? bisect(input, k, {}) : find(input, k, guess(input, k), kernels);
  if (found.greater + found.equal == k) return {found.magnitude - 1, 0};
  return {found.magnitude, input.end_of_ties(found.magnitude, k - found.greater)};
}

std::size_t mark(std::span<const float> values, std::span<float> residual, const Cut& wanted,
                 std::uint64_t first, std::uint32_t* marks, const KernelTable& kernels) {
  const Cut cut = wanted.above > kNotFinite.above ? kNotFinite : wanted;
  const std::size_t count = values.size();
  // Up to `end` what equals the cut is marked too, at first up to the end of its word.
  const std::size_t end = cut.end <= first ? 0 : std::min<std::uint64_t>(cut.end - first, count);
  const std::size_t words_end = std::min(rounded(end, kMarks), count);
  float* const left = residual.data();
  std::size_t found = 0;
  const auto mark_part = [&](std::size_t begin, std::size_t length, std::int32_t above) {
    float* const sums = left ? left + begin : nullptr;
    found += kernels.select.mark(values.data() + begin, sums, sums, length, above,
                                 marks + begin / kMarks);
  };
  mark_part(0, words_end, cut.above - 1);
  mark_part(words_end, count - words_end, cut.above);
  const float* const input = left ? left : values.data();
  for (std::size_t place = end; place < words_end; ++place) {
    if (magnitude(input[place]) != cut.above) continue;
    marks[place / kMarks] &= ~(1u << place % kMarks);
    --found;
  }
  return found;
}

bool all_finite(std::span<const float> values, const KernelTable& kernels) {
  std::uint32_t marks[mark_words(kPiece)];
  for (std::size_t begin = 0; begin < values.size(); begin += kPiece) {
    const auto part = values.subspan(begin, std::min(kPiece, values.size() - begin));
    if (kernels.select.mark(part.data(), nullptr, nullptr, part.size(), kNotFinite.above, marks))
      return false;
  }
  return true;
}

}  // namespace ronde
