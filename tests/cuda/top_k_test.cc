// What a device selects of a whole vector, against the processor's, bit for bit.
#include "cuda/top_k.h"

#include <algorithm>
#include <cstdio>
#include <limits>
#include <optional>

#include "compress/picker.h"
#include "compress/positions.h"
#include "cuda/kernels/top_k.h"
#include "on_device.h"

namespace ronde::cuda {
namespace {

enum class Kind { normal, ties, equal, zeros, denormal, infinite, mostly_infinite, extreme };
constexpr int kKinds = 8;

std::vector<float> vector(Kind kind, std::size_t count, std::mt19937_64& random) {
  std::vector<float> x(count);
  std::normal_distribution<float> normal;
  const auto draw = [&](std::size_t i) -> float {
    const float moderate = normal(random) * std::exp2f(normal(random) * 3);
    switch (kind) {
      case Kind::normal:
        return moderate;
      case Kind::ties:
        return std::round(normal(random) * 2);
      case Kind::equal:
        return random() % 2 ? 0.5f : -0.5f;
      case Kind::zeros:
        return random() % 500 ? (random() % 2 ? 0.0f : -0.0f) : moderate;
      case Kind::denormal:
        return std::bit_cast<float>(static_cast<std::uint32_t>(random() % 1000 + 1));
      case Kind::infinite:
        return i % 97 ? moderate : i % 2 ? NAN : -INFINITY;
      case Kind::mostly_infinite:
        return random() % 3 ? INFINITY : moderate;
      case Kind::extreme:
        return std::bit_cast<float>(static_cast<std::uint32_t>(random()));
    }
    return 0;
  };
  for (std::size_t i = 0; i < count; ++i) x[i] = draw(i);
  return x;
}

struct Case {
  std::size_t k = 0;
  float least = 0;  // if k is 0
  bool feedback = true;
  std::size_t behind = 0, apart = 0;  // in elements: of the values, and of the residual more
  std::optional<std::size_t> room = {};
};

class Selections {
 public:
  /// Whether the guess was good.
  bool run(const std::vector<float>& values, std::vector<float> residual, const Case& c) {
    const std::size_t count = values.size();
    if (!c.feedback) residual = std::vector<float>();
    const auto bytes = [](const auto& all) { return std::as_bytes(std::span(all)); };
    const OnDevice on_device(device_, stream_, bytes(values), c.behind * sizeof(float));
    const OnDevice left(device_, stream_, bytes(residual), (c.behind + c.apart) * sizeof(float));

    Picker picker(values, residual, kernels());
    picker.take(0, count, c.k ? kBelowAll : std::bit_cast<std::int32_t>(c.least) - 1);
    if (c.k) picker.keep_largest(0, c.k, kBelowAll);
    const auto& expected = picker.entries();
    const std::size_t room = c.room.value_or(std::max<std::size_t>(expected.size(), c.k)),
                      there = std::min(room, expected.size());
    // What has no room stays, unless it is not finite.
    if (c.feedback) {
      for (std::size_t i = there; i < expected.size(); ++i) {
        const float x = expected.values()[i];
        if (std::isfinite(x)) residual[expected.positions()[i]] = x;
      }
    }

    const OnDevice positions(device_, stream_, room * sizeof(std::uint32_t)),
        entries(device_, stream_, room * sizeof(float)), number(device_, stream_, sizeof(u32));
    const auto scratch_bytes =
        c.k ? top_k_scratch(device_, count, c.k) : threshold_scratch(device_, count, room);
    const OnDevice scratch(device_, stream_, scratch_bytes);
    const Input input{as<float>(on_device), c.feedback ? as<float>(left) : nullptr, count};
    const Entries out{as<u32>(positions), as<float>(entries), static_cast<u32>(room),
                      as<u32>(number)};
    if (c.k)
      top_k(device_, stream_, input, c.k, out, scratch.data());
    else
      threshold(device_, stream_, input, c.least, out, scratch.data());

    CHECK(as_vector<u32>(number)[0] == expected.size());
    const auto got = as_vector<u32>(positions);
    const auto taken = entries.bytes();
    CHECK(std::ranges::equal(std::span(got).first(there), expected.positions().first(there)));
    CHECK(same(DType::float32, std::span(taken).first(there * sizeof(float)),
               bytes(expected.values().first(there)), true));
    CHECK(same(DType::float32, left.bytes(), bytes(residual), false));
    CHECK(on_device.bytes() == std::vector(bytes(values).begin(), bytes(values).end()));
    ++cases;
    TopKState state{};
    const auto all = scratch.bytes();
    std::memcpy(&state, all.data(), std::min(sizeof state, all.size()));
    return state.survivors >= c.k && state.survivors < std::max<std::size_t>(count / 2, 2);
  }

  std::mt19937_64& random() { return random_; }
  int cases = 0;

 private:
  template <class T>
  static T* as(const OnDevice& memory) {
    return reinterpret_cast<T*>(memory.data());
  }
  template <class T>
  static std::vector<T> as_vector(const OnDevice& memory) {
    const auto bytes = memory.bytes();
    std::vector<T> all(bytes.size() / sizeof(T));
    std::memcpy(all.data(), bytes.data(), bytes.size());
    return all;
  }

  Device& device_ = Device::get(0);
  const Stream stream_{device_};
  std::mt19937_64 random_{seed()};
};

void test() {
  Selections selections;
  auto& random = selections.random();
  const auto residual_of = [&](Kind kind, std::size_t count) {
    return kind == Kind::normal || kind == Kind::extreme ? vector(Kind::normal, count, random)
                                                         : std::vector<float>(count);
  };
  const auto any_case = [&](std::size_t k) {
    return Case{
        .k = k, .feedback = random() % 4 != 0, .behind = random() % 4, .apart = random() % 3 == 0};
  };

  for (int kind = 0; kind < kKinds; ++kind) {
    for (const std::size_t count : {1, 7, 100, 1024, 3333, 4097, 20001}) {
      if (count > 5000 && kind % 2 != static_cast<int>(random() % 2)) continue;
      const auto values = vector(static_cast<Kind>(kind), count, random);
      const auto residual = residual_of(static_cast<Kind>(kind), count);
      for (const std::size_t k : {std::size_t{1}, count / 100, count / 4, count}) {
        if (k > 0) selections.run(values, residual, any_case(k));
      }
      auto c = any_case(0);
      c.least = random() % 4 ? 0.5f : std::numeric_limits<float>::denorm_min();
      selections.run(values, residual, c);
      // Not for all is there room.
      c.room = 1 + random() % count;
      selections.run(values, residual, c);
      c.k = c.room.value();
      selections.run(values, residual, c);
    }
  }

  // Samples that are right, and that are not.
  const std::size_t count = 70001;
  const auto values = vector(Kind::normal, count, random);
  const auto residual = residual_of(Kind::normal, count);
  int good = 0;
  for (const std::size_t k : {70, 700, 7000}) good += selections.run(values, residual, any_case(k));
  CHECK(good >= 2);
  for (const float sampled : {0.0f, 1e20f}) {
    auto wrong = values, left = residual;
    const std::size_t samples = count / 64;
    for (std::size_t i = 0; i < samples; ++i) {
      const auto at = RandomPositions{count, samples, 0}.drawn(i);
      wrong[at] = sampled;
      left[at] = 0;
    }
    for (const bool feedback : {true, false})
      CHECK(!selections.run(wrong, left, {.k = 2000, .feedback = feedback}));
  }
  std::printf("%d selections\n", selections.cases);
}

}  // namespace
}  // namespace ronde::cuda

int main() { ronde::cuda::test(); }
