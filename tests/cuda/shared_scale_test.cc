// Integers with a shared scale on a device, against those of the processor, bit for bit.
#include "cuda/shared_scale.h"

#include <cstdio>

#include "compress/shared_scale.h"
#include "core/error.h"
#include "on_device.h"

namespace {

using namespace ronde;
using namespace ronde::cuda;

struct Case {
  int bits;
  std::size_t block, count;
  Rounding rounding;
  bool feedback;
  std::size_t behind;  // elements after what is well aligned
};

template <class T>
std::span<const std::byte> bytes_of(const std::vector<T>& all) {
  return std::as_bytes(std::span(all));
}

class Checks {
 public:
  template <class T>
  void run(const Case& c) {
    const ronde::SharedScale here(c.bits, c.block, c.rounding);
    const cuda::SharedScale there(device_, c.bits, c.block, c.rounding);
    const auto values = floats(c.count);
    auto residual = c.feedback ? floats(c.count) : std::vector<float>();
    const auto place = c.behind * sizeof(float);
    const OnDevice v(device_, stream_, bytes_of(values), place);
    const OnDevice e(device_, stream_, bytes_of(residual), place);
    const cuda::SharedScale::Vector vector{at<float>(v), c.feedback ? at<float>(e) : nullptr,
                                           c.count};

    std::vector<float> maxima(here.blocks(c.count));
    here.maxima(values, residual, maxima);
    const OnDevice m(device_, stream_, maxima.size() * sizeof(float));
    there.maxima(stream_, vector, at<float>(m));
    CHECK(same(DType::float32, m.bytes(), bytes_of(maxima), c.feedback));

    // Those of all ranks are greater, or NaN, infinite or zero.
    for (auto& max : maxima) {
      if (random_() % 8 == 0) max = floats(1)[0];
    }
    const OnDevice all(device_, stream_, bytes_of(maxima));
    const std::uint64_t key = random_();
    std::vector<T> integers(c.count);
    here.quantise(values, maxima, residual, key, std::span(integers));
    const OnDevice q(device_, stream_, c.count * sizeof(T), c.behind * sizeof(T));
    there.quantise(stream_, vector, at<float>(all), key, at<T>(q));
    CHECK(same(DType::int8, q.bytes(), bytes_of(integers), false));
    CHECK(same(DType::float32, e.bytes(), bytes_of(residual), true));
    CHECK(v.bytes() == bytes(bytes_of(values)));

    // As if more ranks had been added.
    for (auto& integer : integers) integer = static_cast<T>(random_());
    const OnDevice sums(device_, stream_, bytes_of(integers), c.behind * sizeof(T));
    std::vector<float> out(c.count);
    const double factor = random_() % 2 ? 1.0 : 0.3;
    here.dequantise(std::span<const T>(integers), maxima, factor, out);
    const OnDevice o(device_, stream_, c.count * sizeof(float), place);
    const cuda::SharedScale::Sums<T> from{at<T>(sums), at<float>(all), factor};
    there.dequantise(stream_, from, at<float>(o), c.count, Store::copy);
    CHECK(same(DType::float32, o.bytes(), bytes_of(out), true));
    there.dequantise(stream_, from, at<float>(o), c.count, Store::add);
    for (auto& x : out) x += x;
    CHECK(same(DType::float32, o.bytes(), bytes_of(out), true));
    ++cases;
  }

  void run_payload(const Case& c) {
    const ronde::SharedScale here(c.bits, c.block, c.rounding);
    const cuda::SharedScale there(device_, c.bits, c.block, c.rounding);
    const auto values = floats(c.count);
    auto residual = c.feedback ? floats(c.count) : std::vector<float>();
    const OnDevice v(device_, stream_, bytes_of(values), c.behind * sizeof(float));
    const OnDevice e(device_, stream_, bytes_of(residual), c.behind * sizeof(float));
    const cuda::SharedScale::Vector vector{at<float>(v), c.feedback ? at<float>(e) : nullptr,
                                           c.count};
    const Draw draw{random_(), random_() % 1000 * c.block};
    std::vector<std::byte> payload(here.capacity(c.count));
    here.encode(values, residual, draw, payload.data());
    CHECK(payload.size() == there.capacity(c.count));
    const OnDevice p(device_, stream_, payload.size(), random_() % 4 * 4);
    there.encode(stream_, vector, draw, p.data());
    CHECK(p.bytes() == payload);
    CHECK(same(DType::float32, e.bytes(), bytes_of(residual), true));

    const bool broken = random_() % 2 && c.count > 0;
    if (broken) spoil(payload, c);
    auto out = floats(c.count);
    const OnDevice o(device_, stream_, bytes_of(out), c.behind * sizeof(float));
    const OnDevice wrong(device_, stream_, bytes_of(std::vector<std::uint32_t>{0}));
    const OnDevice given(device_, stream_, payload, random_() % 4 * 4);
    const auto store = random_() % 2 ? Store::add : Store::copy;
    there.decode(stream_, given.data(), at<float>(o), c.count, store, at<std::uint32_t>(wrong));
    bool refused = false;
    try {
      here.decode(payload, out, store);
    } catch (const ArgumentError&) {
      refused = true;
    }
    const bool flagged = wrong.bytes()[0] != std::byte{0};
    CHECK(flagged == refused);
    CHECK(refused == broken);
    if (!refused) CHECK(same(DType::float32, o.bytes(), bytes_of(out), true));
    ++cases;
  }

  std::mt19937_64& random() { return random_; }
  int cases = 0;

 private:
  template <class T>
  static T* at(const OnDevice& on_device) {
    return reinterpret_cast<T*>(on_device.data());
  }
  static std::vector<std::byte> bytes(std::span<const std::byte> from) {
    return {from.begin(), from.end()};
  }

  /// A scale or an integer that no encoder writes.
  void spoil(std::vector<std::byte>& payload, const Case& c) {
    const std::size_t blocks = (c.count + c.block - 1) / c.block, number = random_() % blocks;
    const std::size_t begin = number * (c.block + sizeof(float));
    if (c.bits < 8 && random_() % 2) {
      const std::size_t in_block = std::min(c.block, c.count - number * c.block);
      const int levels = (1 << (c.bits - 1)) - 1;
      payload[begin + sizeof(float) + random_() % in_block] =
          static_cast<std::byte>(random_() % 2 ? levels + 1 : -levels - 1);
      return;
    }
    const float scales[] = {-1.0f,           0x1p-140f,
                            -0.0f,           -std::nanf(""),
                            0x1.fffffep127f, std::numeric_limits<float>::infinity()};
    const float scale = scales[random_() % 6];
    std::memcpy(&payload[begin], &scale, sizeof(scale));
  }

  /// Moderate ones, or with infinities and NaN, tiny, zeros, or multiples of one number.
  std::vector<float> floats(std::size_t count) {
    std::vector<float> all(count);
    const auto kind = random_() % 8;
    std::normal_distribution<float> normal;
    for (auto& x : all) {
      x = normal(random_);
      if (kind == 0) x *= 0x1p-130f;
      if (kind == 1) x = 0;
      if (kind == 2) x = std::round(x * 2) * 0.5f;
      if (kind == 3) x *= 0x1p126f;
      if (kind == 4 && random_() % 64 == 0)
        x = std::bit_cast<float>(static_cast<std::uint32_t>(random_()));
    }
    return all;
  }

  Device& device_ = Device::get(0);
  const Stream stream_{device_};
  std::mt19937_64 random_{seed()};
};

}  // namespace

int main() {
  Checks checks;
  auto& random = checks.random();
  for (const std::size_t count : {0, 1, 7, 100, 128, 1024, 1025, 3333, 20000, 70001}) {
    for (const std::size_t block : {128, 384, 1024, 2176, 4096}) {
      for (const auto rounding : {Rounding::nearest, Rounding::stochastic}) {
        for (const bool feedback : {false, true}) {
          if (count > 10000 && feedback != (rounding == Rounding::stochastic)) continue;
          if (count > 50000 && block != 128 && block != 2176) continue;
          const Case c{static_cast<int>(2 + random() % 7), block, count, rounding, feedback,
                       random() % 2 ? 0 : random() % 9};
          if (random() % 2)
            checks.run<std::int8_t>(c);
          else
            checks.run<std::int16_t>(c);
          checks.run_payload(c);
        }
      }
    }
  }
  std::printf("shared_scale: %d cases\n", checks.cases);
}
