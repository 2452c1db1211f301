// Weighted sums and means on a device, against those of the processor, bit for bit.
#include "cuda/weighted.h"

#include <cstdio>

#include "on_device.h"

namespace {

using namespace ronde;
using namespace ronde::cuda;

enum class Out { fresh, left, right };

struct Case {
  DType dtype;
  std::size_t count;
  std::size_t behind[3];  // elements after what is well aligned: left, right, out
  Out out;
  bool mean;
};

class WeightedSums {
 public:
  void run(const Case& c) {
    const auto size = size_of(c.dtype);
    const auto left = elements(c.dtype, c.count, random_);
    const auto right = elements(c.dtype, c.count, random_);
    const OnDevice left_there(device_, stream_, left, c.behind[0] * size);
    const OnDevice right_there(device_, stream_, right, c.behind[1] * size);
    const OnDevice fresh(device_, stream_, c.count * size, c.behind[2] * size);
    const auto& out = c.out == Out::left ? left_there : c.out == Out::right ? right_there : fresh;
    std::vector<std::byte> expected(c.count * size);
    if (c.mean) {
      const int a = 1 + static_cast<int>(random_() % 7), b = 1 + static_cast<int>(random_() % 7);
      ronde::mean(c.dtype, expected.data(), {left.data(), a}, {right.data(), b}, c.count);
      cuda::mean(device_, stream_, c.dtype, out.data(), {left_there.data(), a},
                 {right_there.data(), b}, c.count);
    } else {
      std::normal_distribution<double> normal;
      const double a = normal(random_), b = normal(random_);
      ronde::add_weighted(c.dtype, expected.data(), {left.data(), a}, {right.data(), b}, c.count);
      cuda::add_weighted(device_, stream_, c.dtype, out.data(), {left_there.data(), a},
                         {right_there.data(), b}, c.count);
    }
    CHECK(same(c.dtype, out.bytes(), expected, true));
    if (c.out != Out::left) CHECK(left_there.bytes() == left);
    if (c.out != Out::right) CHECK(right_there.bytes() == right);
    ++cases;
  }

  std::mt19937_64& random() { return random_; }
  int cases = 0;

 private:
  Device& device_ = Device::get(0);
  const Stream stream_{device_};
  std::mt19937_64 random_{seed()};
};

}  // namespace

int main() {
  WeightedSums sums;
  auto& random = sums.random();
  for (const auto dtype : {DType::float16, DType::bfloat16, DType::float32, DType::float64}) {
    for (const std::size_t count : {1, 7, 8, 100, 1024, 1025, 3333, 20001, 50000}) {
      for (const auto out : {Out::fresh, Out::left, Out::right}) {
        const std::size_t behind = random() % 9;
        const std::size_t other = random() % 3 == 0 ? random() % 9 : behind;
        sums.run({dtype, count, {behind, other, behind}, out, random() % 2 == 0});
      }
    }
  }
  std::printf("%d weighted sums\n", sums.cases);
}
