#include "compress/random_k.h"

#include <algorithm>
#include <memory>

#include "compress/cut.h"

namespace ronde {
namespace {

/// A number below `limit`, which is below 2^32, by SplitMix64 (Steele, Lea and Flood 2014).
std::uint64_t draw_below(std::uint64_t limit, std::uint64_t key, std::uint64_t number) {
  std::uint64_t x = key + (number + 1) * 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return ((x ^ (x >> 31)) >> 32) * limit >> 32;
}

/// The places that are drawn of a whole vector.
struct Places {
  std::uint64_t count = 0, parts = 0;  // both below 2^32
  std::uint64_t key = 0;

  std::uint64_t begin(std::uint64_t part) const { return part * count / parts; }
  std::uint64_t part_of(std::uint64_t place) const { return ((place + 1) * parts - 1) / count; }
  std::uint64_t drawn(std::uint64_t part) const {
    return begin(part) + draw_below(begin(part + 1) - begin(part), key, part);
  }
};

/// Sends the entries of places that are known.
class Drawn final : public Selection {
 public:
  Drawn(const Places& places, const KernelTable& kernels) : Selection(kernels), places_(places) {}

 protected:
  std::size_t select(std::span<const float> values, std::span<float> residual, Draw draw,
                     std::uint32_t* marks) const override {
    std::size_t found = mark(values, residual, kNotFinite, draw.first, marks, kernels_);
    const std::uint64_t last = places_.part_of(draw.first + values.size() - 1);
    for (std::uint64_t part = places_.part_of(draw.first); part <= last; ++part) {
      const std::uint64_t place = places_.drawn(part) - draw.first;  // wraps where it lies before
      if (place >= values.size()) continue;
      const std::uint32_t bit = 1u << place % kMarks;
      if ((marks[place / kMarks] & bit) == 0) ++found;
      marks[place / kMarks] |= bit;
    }
    return found;
  }

 private:
  Places places_;
};

}  // namespace

std::size_t RandomK::capacity_of_whole(std::size_t count) const {
  return length(share(ratio_, count), count);
}

std::shared_ptr<const Compressor> RandomK::fitted(std::span<const float> values,
                                                  std::span<const float>, std::uint64_t key) const {
  const std::size_t count = values.size();
  return std::make_shared<Drawn>(Places{count, share(ratio_, count), key}, kernels_);
}

}  // namespace ronde
