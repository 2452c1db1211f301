#include "compress/cut.h"

#include <algorithm>
#include <numeric>

namespace ronde {

/// The k-th largest is looked for between two magnitudes, `low`, above which are more than k
/// values, and `high`, above which are fewer. It is not expected to be far from the first `low`; so
/// steps upwards, each twice as long as the one before, find a first `high`. Then it is looked for
/// in turns in the middle, which is safe, and where it would be if the values between lay evenly.
Cut cut_of(std::span<const float> values, std::size_t k, std::int32_t low,
           const KernelTable& kernels) {
  const auto count = [&](std::int32_t above) {
    return kernels.select.count(values.data(), values.size(), above);
  };
  std::int32_t high = kGreatestFinite, step = 1 << 20;  // an eighth of the way to the double value
  std::size_t above_low = values.size(), above_high = count(high);
  if (above_high >= k) return {high};
  for (bool upwards = true, evenly = true; high - low > 1; evenly = !evenly) {
    std::int32_t next;
    if (upwards) {
      next = low + std::min(step, high - low - 1);
      step = std::min(2 * step, 1 << 29);
    } else if (evenly) {
      const double share =
          static_cast<double>(above_low - k) / static_cast<double>(above_low - above_high);
      next = std::clamp(low + static_cast<std::int32_t>(share * (high - low)), low + 1, high - 1);
    } else {
      next = std::midpoint(low, high);
    }
    const std::size_t found = count(next);
    if (found == k) return {next};
    if (found > k) {
      low = next;
      above_low = found;
    } else {
      high = next;
      above_high = found;
      upwards = false;
    }
  }
  return {high, k - above_high};
}

bool all_finite(std::span<const float> values, const KernelTable& kernels) {
  return kernels.select.count(values.data(), values.size(), kGreatestFinite) == 0;
}

}  // namespace ronde
