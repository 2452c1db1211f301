// Reductions on a device, against those of the processor, bit for bit.
#include "cuda/reduce.h"

#include <cstdio>

#include "kernels/kernels.h"
#include "on_device.h"

namespace {

using namespace ronde;
using namespace ronde::cuda;

struct Case {
  Reduction reduction;
  std::size_t inputs, count;
  std::size_t behind;  // elements after what is well aligned
  bool alike, in_place;
};

class Reductions {
 public:
  void run(const Case& c) {
    const auto dtype = c.reduction.dtype;
    const auto size = size_of(dtype);
    std::vector<std::vector<std::byte>> inputs;
    std::vector<std::unique_ptr<OnDevice>> on_device;
    std::vector<const void*> here, there;
    for (std::size_t i = 0; i < c.inputs; ++i) {
      inputs.push_back(elements(dtype, c.count, random_));
      const auto behind = (c.behind + (c.alike ? 0 : i)) * size;
      on_device.push_back(std::make_unique<OnDevice>(device_, stream_, inputs[i], behind));
      here.push_back(inputs[i].data());
      there.push_back(on_device[i]->data());
    }
    std::vector<std::byte> expected(c.count * size);
    void* out = expected.data();
    ronde::reduce_many(c.reduction, {&out, 1}, here, c.count, false);
    const OnDevice fresh(device_, stream_, c.count * size, c.behind * size);
    const auto& result = c.in_place ? *on_device.back() : fresh;
    cuda::reduce_many(device_, stream_, c.reduction, result.data(), there, c.count);
    // The hardware chooses the NaN of what it adds, multiplies or divides.
    const bool any_nan = is_floating(dtype);
    CHECK(same(dtype, result.bytes(), expected, any_nan));
    for (std::size_t i = 0; i + (c.in_place ? 1 : 0) < c.inputs; ++i)
      CHECK(on_device[i]->bytes() == inputs[i]);
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
  Reductions reductions;
  auto& random = reductions.random();
  for (int d = 0; d < kDTypeCount; ++d) {
    for (int o = 0; o < kReduceOpCount; ++o) {
      Reduction reduction{.dtype = static_cast<DType>(d), .op = static_cast<ReduceOp>(o)};
      for (const std::size_t inputs : {1, 2, 3, 5, 8}) {
        for (const std::size_t count : {1, 7, 100, 20001}) {
          if (count > 1000 && inputs != 2 && inputs != 5) continue;
          const bool scaled = is_floating(reduction.dtype) && random() % 2;
          reduction.prescale = scaled ? 0.3 : 1.0;
          reduction.divisor = scaled && random() % 2 ? static_cast<double>(inputs) : 1.0;
          reduction.postscale = scaled && random() % 2 ? 1.7 : 1.0;
          reductions.run(
              {reduction, inputs, count, random() % 9, random() % 4 != 0, random() % 2 == 0});
        }
      }
    }
  }
  std::printf("%d reductions\n", reductions.cases);
}
