#include "compress/random_k.h"

#include <algorithm>
#include <iterator>
#include <memory>
#include <vector>

#include "compress/places.h"

namespace ronde {
namespace {

/// Sends the entries of places that are known.
class Drawn final : public Selection {
 public:
  Drawn(const Places& places, const KernelTable& kernels) : Selection(kernels), places_(places) {}

 protected:
  void select(Picker& picker, Draw draw) const override {
    std::vector<std::uint32_t> drawn, both;
    for (std::size_t begin = 0; begin < picker.count(); begin += Picker::kPiece) {
      const std::size_t end = std::min(begin + Picker::kPiece, picker.count());
      drawn.clear();
      const std::uint64_t last = places_.part_of(draw.first + end - 1);
      for (std::uint64_t part = places_.part_of(draw.first + begin); part <= last; ++part) {
        const std::uint64_t place = places_.drawn(part) - draw.first;  // wraps where it lies before
        if (begin <= place && place < end) drawn.push_back(static_cast<std::uint32_t>(place));
      }
      const std::size_t first = picker.entries().size();
      picker.take(begin, end, kGreatestFinite);
      const auto not_finite = picker.entries().places().subspan(first);
      both.clear();
      std::set_union(not_finite.begin(), not_finite.end(), drawn.begin(), drawn.end(),
                     std::back_inserter(both));
      picker.put_back(first);
      for (const std::uint32_t place : both) picker.take_one(place);
    }
  }

 private:
  Places places_;
};

}  // namespace

std::size_t RandomK::capacity_of_whole(std::size_t count) const {
  return length(share(ratio_, count), count);
}

std::shared_ptr<const Compressor> RandomK::fitted(std::span<const float> values, std::span<float>,
                                                  std::uint64_t key) const {
  const std::size_t count = values.size();
  return std::make_shared<Drawn>(Places{count, share(ratio_, count), key}, kernels_);
}

}  // namespace ronde
