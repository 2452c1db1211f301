#include "compress/low_rank.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "core/error.h"

namespace ronde {
namespace {

void check(std::size_t size, std::size_t wanted, const char* what) {
  if (size != wanted)
    throw ArgumentError(std::string(what) + " has " + std::to_string(size) + " elements, not " +
                        std::to_string(wanted));
}

/// Right vectors, filled up with zeros as the kernels want them.
class Padded {
 public:
  explicit Padded(const LowRankShape& shape)
      : shape_(shape), values_(shape.rank * shape.stride() * sizeof(float)) {
    std::fill_n(data(), shape.rank * shape.stride(), 0.0f);
  }
  Padded(const LowRankShape& shape, const float* vectors) : Padded(shape) {
    for (std::size_t k = 0; k < shape.rank; ++k)
      std::copy_n(vectors + k * shape.columns, shape.columns, data() + k * shape.stride());
  }

  float* data() const { return values_.as<float>(); }

  void copy_to(float* vectors) const {
    for (std::size_t k = 0; k < shape_.rank; ++k)
      std::copy_n(data() + k * shape_.stride(), shape_.columns, vectors + k * shape_.columns);
  }

 private:
  LowRankShape shape_;
  Bytes values_;
};

/// In eight lanes, so that it does not wait for one addition after the other.
template <class T>
double dot(const double* a, const T* b, std::size_t count) {
  constexpr std::size_t kSums = 8;
  double sums[kSums] = {};
  std::size_t i = 0;
  for (; i + kSums <= count; i += kSums) {
    for (std::size_t lane = 0; lane < kSums; ++lane) sums[lane] += a[i + lane] * b[i + lane];
  }
  for (; i < count; ++i) sums[i % kSums] += a[i] * b[i];
  return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

}  // namespace

LowRank::LowRank(const LowRankShape& shape, const KernelTable& kernels)
    : shape_(shape), kernels_(kernels.low_rank) {
  if (shape.rank < 1 || shape.rank > kMaxRank)
    throw ArgumentError("the rank must be 1 to " + std::to_string(kMaxRank) + ", not " +
                        std::to_string(shape.rank));
}

void LowRank::project(std::span<const float> matrix, std::span<float> residual,
                      std::span<const float> right, std::span<float> left) const {
  check(matrix.size(), shape_.rows * shape_.columns, "the matrix");
  if (!residual.empty()) check(residual.size(), matrix.size(), "the residual");
  check(right.size(), shape_.rank * shape_.columns, "right");
  check(left.size(), shape_.rank * shape_.rows, "left");
  const Padded vectors(shape_, right.data());
  kernels_.project(shape_, matrix.data(), residual.empty() ? nullptr : residual.data(),
                   vectors.data(), left.data());
}

void LowRank::back_project(std::span<const float> matrix, std::span<const float> left,
                           std::span<float> right) const {
  check(matrix.size(), shape_.rows * shape_.columns, "the matrix");
  check(left.size(), shape_.rank * shape_.rows, "left");
  check(right.size(), shape_.rank * shape_.columns, "right");
  const Padded sums(shape_);
  kernels_.back_project(shape_, matrix.data(), left.data(), sums.data());
  sums.copy_to(right.data());
}

void LowRank::reconstruct(std::span<const float> left, std::span<const float> right,
                          std::span<float> out, float factor, std::span<float> residual,
                          std::size_t ranks) const {
  check(left.size(), shape_.rank * shape_.rows, "left");
  check(right.size(), shape_.rank * shape_.columns, "right");
  check(out.size(), shape_.rows * shape_.columns, "out");
  if (!residual.empty()) check(residual.size(), out.size(), "the residual");
  if (ranks == 0) throw ArgumentError("there is at least one rank");
  const Padded vectors(shape_, right.data());
  const float share = 1.0f / static_cast<float>(ranks);
  kernels_.reconstruct(shape_, left.data(), vectors.data(), factor, share,
                       residual.empty() ? nullptr : residual.data(), out.data());
}

bool orthogonalise(std::span<float> vectors, std::size_t count) {
  if (count == 0 || vectors.size() % count)
    throw ArgumentError(std::to_string(vectors.size()) + " elements are not " +
                        std::to_string(count) + " vectors of one length");
  const std::size_t length = vectors.size() / count;
  const auto vector = [&](std::size_t k) { return vectors.data() + k * length; };
  std::vector<double> x(length), norms(count);
  for (std::size_t k = 0; k < count; ++k) {
    std::copy_n(vector(k), length, x.begin());
    norms[k] = std::sqrt(dot(x.data(), x.data(), length));  // squares of floats do not overflow
    if (!std::isfinite(norms[k])) return false;
  }
  for (std::size_t k = 0; k < count; ++k) {
    std::copy_n(vector(k), length, x.begin());
    for (std::size_t j = 0; j < 2 * k; ++j) {
      const float* const before = vector(j % k);
      const double share = dot(x.data(), before, length);
      for (std::size_t i = 0; i < length; ++i) x[i] -= share * before[i];
    }
    const double left = std::sqrt(dot(x.data(), x.data(), length));
    const double scale = left > 0x1p-20 * norms[k] ? 1 / left : 0;
    for (std::size_t i = 0; i < length; ++i) vector(k)[i] = static_cast<float>(x[i] * scale);
  }
  return true;
}

}  // namespace ronde
