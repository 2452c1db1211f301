// Dot products on a device: those of blocks are the processor's, added in the documented order.
#include "cuda/dots.h"

#include <array>
#include <cstdio>

#include "compress/cast.h"
#include "kernels/kernels.h"
#include "on_device.h"

namespace {

using namespace ronde;
using namespace ronde::cuda;

/// By halves, the first half of the sums getting the second.
template <std::size_t count>
Dots add_halves(std::array<Dots, count> sums) {
  for (std::size_t half = count / 2; half > 0; half /= 2) {
    for (std::size_t i = 0; i < half; ++i) {
      sums[i].left_left += sums[i + half].left_left;
      sums[i].left_right += sums[i + half].left_right;
      sums[i].right_right += sums[i + half].right_right;
    }
  }
  return sums[0];
}

Dots in_order(DType dtype, const std::byte* left, const std::byte* right, std::size_t count) {
  constexpr std::size_t kBlock = 1024, kGroup = 16;
  std::array<Dots, 256> sums{};
  for (std::size_t group = 0; group * kGroup * kBlock < count; ++group) {
    std::array<Dots, kGroup> blocks{};
    for (std::size_t block = 0; block < kGroup; ++block) {
      const std::size_t begin = (group * kGroup + block) * kBlock, at = begin * size_of(dtype);
      if (begin < count)
        blocks[block] = ronde::dots(dtype, left + at, right + at, std::min(kBlock, count - begin));
    }
    const Dots all = add_halves(blocks);
    auto& sum = sums[group % sums.size()];
    sum = {sum.left_left + all.left_left, sum.left_right + all.left_right,
           sum.right_right + all.right_right};
  }
  return add_halves(sums);
}

std::span<const std::byte> bytes_of(const Dots& dots) { return std::as_bytes(std::span(&dots, 1)); }

/// As of gradients: no sum of them is NaN.
std::vector<std::byte> moderate(DType dtype, std::size_t count, std::mt19937_64& random) {
  std::normal_distribution<double> normal;
  std::vector<float> floats(count);
  std::vector<double> doubles(count);
  for (std::size_t i = 0; i < count; ++i) {
    doubles[i] = normal(random) * std::exp2(normal(random));
    floats[i] = static_cast<float>(doubles[i]);
  }
  std::vector<std::byte> all(count * size_of(dtype));
  if (count == 0) return all;
  if (dtype == DType::float64)
    std::memcpy(all.data(), doubles.data(), all.size());
  else if (dtype == DType::float32)
    std::memcpy(all.data(), floats.data(), all.size());
  else
    Cast(dtype == DType::float16 ? Code::float16 : Code::bfloat16)
        .encode(floats, {}, {}, all.data());
  return all;
}

bool near(double a, double b, double scale) { return std::abs(a - b) <= 1e-13 * scale; }

class DotProductsTest {
 public:
  void run(DType dtype, std::size_t count, bool any_elements) {
    const auto draw = any_elements ? elements : moderate;
    const auto left = draw(dtype, count, random_), right = draw(dtype, count, random_);
    const OnDevice left_there(device_, stream_, left, random_() % 9 * size_of(dtype));
    const OnDevice right_there(device_, stream_, right, random_() % 9 * size_of(dtype));
    const OnDevice out(device_, stream_, sizeof(Dots));
    cuda::dots(device_, stream_, dtype, left_there.data(), right_there.data(), count,
               reinterpret_cast<Dots*>(out.data()));
    const auto result = out.bytes();
    const Dots expected = in_order(dtype, left.data(), right.data(), count);
    CHECK(same(DType::float64, result, bytes_of(expected), true));
    const Dots sequential = ronde::dots(dtype, left.data(), right.data(), count);
    if (count <= 1024) CHECK(same(DType::float64, result, bytes_of(sequential), true));
    if (!any_elements) {
      const double scale = sequential.left_left + sequential.right_right;
      CHECK(near(expected.left_left, sequential.left_left, scale));
      CHECK(near(expected.left_right, sequential.left_right, scale));
      CHECK(near(expected.right_right, sequential.right_right, scale));
    }
    ++cases;
  }

  int cases = 0;

 private:
  Device& device_ = Device::get(0);
  const Stream stream_{device_};
  std::mt19937_64 random_{seed()};
};

}  // namespace

int main() {
  DotProductsTest test;
  for (const auto dtype : {DType::float16, DType::bfloat16, DType::float32, DType::float64}) {
    for (const std::size_t count :
         {0, 1, 7, 15, 16, 17, 100, 1023, 1024, 1025, 3333, 16384, 40007}) {
      test.run(dtype, count, false);
      test.run(dtype, count, true);
    }
  }
  // More groups than there are sums.
  test.run(DType::float16, 258 * 16384 + 5, false);
  std::printf("%d dot products\n", test.cases);
}
