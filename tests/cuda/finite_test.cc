// Whether values are finite or beyond a limit, at all lengths and alignments; wherever the one is
// that is not.
#include "cuda/finite.h"

#include <cmath>
#include <cstdio>
#include <memory>

#include "on_device.h"

namespace {

using namespace ronde;
using namespace ronde::cuda;

constexpr DType kTypes[] = {DType::float16, DType::bfloat16, DType::float32, DType::float64};

struct Array {
  DType dtype;
  std::size_t count;
  std::size_t behind = 0;  // elements after what is well aligned
  double limit = std::numeric_limits<double>::infinity();
};

/// Elements as bits.
class Bits {
 public:
  Bits(DType dtype, std::size_t count) : size_(size_of(dtype)), bytes_(count * size_) {}

  void set(std::size_t i, std::uint64_t bits) { std::memcpy(&bytes_[i * size_], &bits, size_); }
  std::uint64_t get(std::size_t i) const {
    std::uint64_t bits = 0;
    std::memcpy(&bits, &bytes_[i * size_], size_);
    return bits;
  }
  const std::vector<std::byte>& bytes() const { return bytes_; }

 private:
  std::size_t size_;
  std::vector<std::byte> bytes_;
};

std::uint64_t infinity_of(DType dtype) {
  switch (dtype) {
    case DType::float16:
      return 0x7c00;
    case DType::bfloat16:
      return 0x7f80;
    case DType::float32:
      return 0x7f800000;
    default:
      return 0x7ff0000000000000;
  }
}

std::uint64_t sign_of(DType dtype) { return std::uint64_t{1} << (8 * size_of(dtype) - 1); }

class Checks {
 public:
  /// Without, and then with one value that is beyond.
  void run(const std::vector<Array>& arrays) {
    std::vector<Bits> values;
    for (const auto& array : arrays) values.push_back(draw(array));
    CHECK(!beyond(arrays, values));
    const std::size_t which = random_() % arrays.size();
    const auto& [dtype, count, behind, limit] = arrays[which];
    if (count) {
      const auto infinity = infinity_of(dtype);
      const std::uint64_t bad[] = {infinity, infinity + 1, infinity | infinity >> 1,
                                   sign_of(dtype) - 1, least_beyond(arrays[which])};
      const auto at = random_() % 3 == 0 ? random_() % 2 * (count - 1) : random_() % count;
      values[which].set(at, bad[random_() % 5] | (random_() % 2 ? sign_of(dtype) : 0));
      CHECK(beyond(arrays, values));
    }
    ++cases;
  }

  /// The greatest value that is within, and the least that is not, at each position.
  void run_everywhere(const Array& array) {
    Bits values = draw(array);
    for (std::size_t i = 0; i < array.count; ++i) {
      const auto before = values.get(i);
      values.set(i, (least_beyond(array) - 1) | sign_of(array.dtype));
      CHECK(!beyond({array}, {values}));
      values.set(i, least_beyond(array));
      CHECK(beyond({array}, {values}));
      values.set(i, before);
    }
    ++cases;
  }

  std::mt19937_64& random() { return random_; }
  int cases = 0;

 private:
  static std::uint64_t least_beyond(const Array& array) {
    if (array.dtype != DType::float64 || std::isinf(array.limit)) return infinity_of(array.dtype);
    return std::bit_cast<std::uint64_t>(array.limit) + 1;
  }

  /// Any bits that are within.
  Bits draw(const Array& array) {
    Bits values(array.dtype, array.count);
    for (std::size_t i = 0; i < array.count; ++i) {
      auto magnitude = random_() % sign_of(array.dtype);
      if (magnitude >= least_beyond(array)) magnitude = random_() % least_beyond(array);
      values.set(i, magnitude | (random_() % 2 ? sign_of(array.dtype) : 0));
    }
    return values;
  }

  bool beyond(const std::vector<Array>& arrays, const std::vector<Bits>& values) {
    std::vector<std::unique_ptr<OnDevice>> there;
    std::vector<Limited> table;
    for (std::size_t i = 0; i < arrays.size(); ++i) {
      const auto& [dtype, count, behind, limit] = arrays[i];
      there.push_back(
          std::make_unique<OnDevice>(device_, stream_, values[i].bytes(), behind * size_of(dtype)));
      table.push_back({there[i]->data(), count, dtype, limit});
    }
    const std::uint32_t none = 0;
    const OnDevice flag(device_, stream_, std::as_bytes(std::span(&none, 1)));
    find_beyond(device_, stream_, table, reinterpret_cast<std::uint32_t*>(flag.data()));
    table.clear();  // it may end
    std::uint32_t found = 0;
    std::memcpy(&found, flag.bytes().data(), sizeof found);
    CHECK(found <= 1);
    return found;
  }

  Device& device_ = Device::get(0);
  const Stream stream_{device_};
  std::mt19937_64 random_{seed()};
};

}  // namespace

int main() {
  Checks checks;
  auto& random = checks.random();
  const auto limit = [&] {
    return random() % 2 ? 1e38 / static_cast<double>(1 + random() % 9) : 0;
  };
  for (const auto dtype : kTypes) {
    for (const std::size_t count : {1, 7, 40}) checks.run_everywhere({dtype, count, random() % 9});
    for (const std::size_t count : {1, 100, 1024, 1025, 3333, 20000, 70001}) {
      checks.run({{dtype, count}});
      checks.run({{dtype, count, random() % 9}});
    }
  }
  for (const std::size_t count : {1, 5, 20})
    checks.run_everywhere({DType::float64, count, random() % 3, 1 + limit()});
  checks.run({{DType::float32, 0}, {DType::float64, 0}});
  for (const std::size_t count : {2, 31, 33, 500}) {
    std::vector<Array> arrays(count);
    for (auto& [dtype, length, behind, most] : arrays) {
      dtype = kTypes[random() % 4];
      length = random() % (std::size_t{1} << random() % (count < 100 ? 14 : 6));
      behind = random() % 9;
      if (random() % 2) most = limit();
    }
    checks.run(arrays);
  }
  std::printf("%d checks\n", checks.cases);
}
