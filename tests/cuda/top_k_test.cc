// What a device selects of a whole vector, against the processor's, bit for bit.
#include "cuda/top_k.h"

#include <cstdio>
#include <limits>
#include <optional>

#include "compress/positions.h"
#include "cuda/kernels/top_k.h"
#include "selection.h"

namespace ronde::cuda {
namespace {

struct Case {
  std::size_t k = 0;
  float least = 0;  // if k is 0
  bool feedback = true;
  std::size_t behind = 0, apart = 0;  // in elements: of the values, and of the residual more
  std::optional<std::size_t> room = {};
};

class Selections {
 public:
  /// Returns how many have survived.
  std::size_t run(const std::vector<float>& values, std::vector<float> residual, const Case& c) {
    const std::size_t count = values.size();
    if (!c.feedback) residual = std::vector<float>();
    const auto given = std::as_bytes(std::span(values));
    const auto behind = c.behind * sizeof(float), apart = c.apart * sizeof(float);
    const OnDevice on_device(device_, stream_, given, behind),
        left(device_, stream_, std::as_bytes(std::span(residual)), behind + apart);

    Picker picker(values, residual, kernels());
    picker.take(0, count, c.k ? kBelowAll : std::bit_cast<std::int32_t>(c.least) - 1);
    if (c.k) picker.keep_largest(0, c.k, kBelowAll);
    const auto& expected = picker.entries();
    const auto room_for = c.room.value_or(std::max(expected.size(), c.k));
    const Room room(device_, stream_, room_for);

    const auto bytes =
        c.k ? top_k_scratch(device_, count, c.k) : threshold_scratch(device_, count, room_for);
    const OnDevice scratch(device_, stream_, bytes);
    const Input input{as<float>(on_device), c.feedback ? as<float>(left) : nullptr, count};
    if (c.k)
      top_k(device_, stream_, input, c.k, room.entries(), scratch.data());
    else
      threshold(device_, stream_, input, c.least, room.entries(), scratch.data());

    room.check(expected, residual);
    CHECK(same(DType::float32, left.bytes(), std::as_bytes(std::span(residual)), false));
    CHECK(std::ranges::equal(on_device.bytes(), given));
    ++cases;
    TopKState state;
    const auto all = scratch.bytes();
    std::memcpy(&state, all.data(), sizeof state);
    return state.survivors;
  }

  std::mt19937_64& random() { return random_; }
  int cases = 0;

 private:
  Device& device_ = Device::get(0);
  const Stream stream_{device_};
  std::mt19937_64 random_{seed()};
};

Case any_case(std::size_t k, std::mt19937_64& random) {
  return {
      .k = k, .feedback = random() % 4 != 0, .behind = random() % 4, .apart = random() % 3 == 0};
}

void test_kinds(Selections& selections) {
  auto& random = selections.random();
  for (int kind = 0; kind < kKinds; ++kind) {
    for (const std::size_t count : {1, 7, 100, 1024, 3333, 4097, 20001}) {
      if (count > 5000 && random() % 3) continue;
      const auto values = vector(static_cast<Kind>(kind), count, random);
      const auto residual =
          random() % 2 ? vector(Kind::normal, count, random) : std::vector<float>(count);
      const std::size_t all[] = {1, count / 100, count / 4, count};
      const std::size_t k = all[random() % 4];
      selections.run(values, residual, any_case(std::max<std::size_t>(k, 1), random));
      auto c = any_case(0, random);
      c.least = random() % 4 ? 0.5f : std::numeric_limits<float>::denorm_min();
      selections.run(values, residual, c);
      // Not for all is there room.
      c.room = 1 + random() % count;
      c.k = random() % 2 ? c.room.value() : 0;
      selections.run(values, residual, c);
    }
  }
}

/// Samples that are right, and that are not.
void test_guesses(Selections& selections) {
  auto& random = selections.random();
  constexpr std::size_t kCount = 70001, kSamples = kCount / 64;
  const auto values = vector(Kind::normal, kCount, random),
             residual = vector(Kind::normal, kCount, random);
  int good = 0;
  for (const std::size_t k : {70, 700, 7000}) {
    const auto survivors = selections.run(values, residual, any_case(k, random));
    good += survivors >= k && survivors < 6 * k;
  }
  CHECK(good >= 2);
  for (const float sampled : {0.0f, 1e20f}) {
    auto wrong = values, left = residual;
    for (std::size_t i = 0; i < kSamples; ++i) {
      const auto at = RandomPositions{kCount, kSamples, 0}.drawn(i);
      wrong[at] = sampled;
      left[at] = 0;
    }
    constexpr std::size_t kWanted = 2000;
    for (const bool feedback : {true, false}) {
      const auto survivors = selections.run(wrong, left, {.k = kWanted, .feedback = feedback});
      CHECK(sampled > 0 ? survivors < kWanted : survivors == kCount);
    }
  }
}

void test() {
  Selections selections;
  test_kinds(selections);
  test_guesses(selections);
  std::printf("%d selections\n", selections.cases);
}

}  // namespace
}  // namespace ronde::cuda

int main() { ronde::cuda::test(); }
