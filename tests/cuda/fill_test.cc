// Neutral values on a device, against those of the host.
#include "cuda/fill.h"

#include <algorithm>
#include <cstdio>

#include "kernels/neutral.h"
#include "on_device.h"

using namespace ronde;

int main() {
  auto& device = cuda::Device::get(0);
  const cuda::Stream stream(device);
  std::mt19937_64 random(cuda::seed());
  int cases = 0;
  for (int d = 0; d < kDTypeCount; ++d) {
    for (int o = 0; o < kReduceOpCount; ++o) {
      for (const std::size_t count : {0, 1, 7, 100, 20001}) {
        Reduction reduction{.dtype = static_cast<DType>(d), .op = static_cast<ReduceOp>(o)};
        const double factors[] = {1.0, -2.0, 0.0};
        if (is_floating(reduction.dtype)) reduction.prescale = factors[random() % 3];
        const auto size = size_of(reduction.dtype), behind = random() % 17 * size;
        std::vector<std::byte> expected(count * size);
        ronde::fill_neutral(reduction, {expected.data(), expected.size()});
        // With one element on either side, which stays.
        const cuda::OnDevice there(device, stream, expected.size() + 2 * size, behind);
        const auto around = there.bytes();
        cuda::fill_neutral(device, stream, reduction, there.data() + size, count);
        const auto found = there.bytes();
        const std::span all(found), was(around);
        CHECK(std::ranges::equal(all.subspan(size, expected.size()), expected));
        CHECK(std::ranges::equal(all.first(size), was.first(size)));
        CHECK(std::ranges::equal(all.last(size), was.last(size)));
        ++cases;
      }
    }
  }
  std::printf("fill: %d cases\n", cases);
}
