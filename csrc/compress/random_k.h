// Random entries, the same on all ranks: the vector is cut into k = round(ratio n) parts, as even
// as possible, and one entry of each is drawn by the key and the number of the part. So exactly k
// are sent, and each has had its turn after some 1/ratio steps (Stich et al. 2018). They are sent
// as they are, not divided by the ratio: with a residual that is right, as nothing is sent twice.
//
// All ranks know the positions, so none has to be sent, and the entries of a sum are the sums of
// the entries: an exact allreduce of k numbers is all that it takes. The payload of a whole vector
// is
//
//   key       by which the positions were drawn (64 bits), the same on all ranks
//   numbers   float32, one for each part
//
// NaN or infinity anywhere in a part makes its number NaN, whatever was drawn, and a number that is
// not finite is decoded to the whole part.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "compress/compressor.h"
#include "compress/positions.h"
#include "kernels/kernels.h"

namespace ronde {

class RandomK final : public Compressor {
 public:
  /// Throws ArgumentError unless 0 < ratio <= 1.
  explicit RandomK(double ratio, const KernelTable& kernels = ronde::kernels());

  std::size_t grain() const override { return 1; }
  std::size_t capacity(std::size_t count) const override;
  std::optional<std::size_t> summable_offset() const override { return kHead; }
  std::size_t encode(std::span<const float> values, std::span<float> residual, Draw draw,
                     std::byte* payload) const override;
  void decode(std::span<const std::byte> payload, std::span<float> out, Store store) const override;
  bool unbiased() const override { return false; }

 private:
  static constexpr std::size_t kHead = sizeof(std::uint64_t);

  RandomPositions positions(std::size_t count, std::uint64_t key) const;

  double ratio_;
  const KernelTable& kernels_;
};

}  // namespace ronde
