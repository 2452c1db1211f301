// Block top-k and random-k on a device, against the processor's, bit for bit.
#include "cuda/select.h"

#include <cstdio>
#include <optional>

#include "compress/random_k.h"
#include "compress/sparse.h"
#include "selection.h"

namespace ronde::cuda {
namespace {

class Selections {
 public:
  std::mt19937_64& random() { return random_; }
  int blocks = 0, draws = 0;

  void block_top_k(Kind kind, std::size_t count, const BlockRatio& of) {
    begin(kind, count);
    Picker picker(values_, residual_, kernels());
    for (std::size_t at = 0; at < count; at += of.block) {
      const std::size_t end = std::min(at + of.block, count), first = picker.entries().size();
      picker.take(at, end, kBelowAll);
      picker.keep_largest(first, share(of.ratio, end - at), kBelowAll);
    }
    const auto& expected = picker.entries();
    const bool enough = random_() % 4 != 0;
    const Room room(device_, stream_, enough ? expected.size() : 1 + random_() % expected.size());
    const OnDevice scratch(device_, stream_, block_top_k_scratch(device_, of, count));
    cuda::block_top_k(device_, stream_, input(), of, room.entries(), scratch.data());
    room.check(expected, residual_);
    if (kind != Kind::infinite && kind != Kind::mostly_infinite && kind != Kind::extreme)
      CHECK(expected.size() == block_top_k_entries(of, count));
    check_residual();
    ++blocks;
  }

  void random_k(Kind kind, std::size_t count, double ratio) {
    begin(kind, count);
    const RandomK codec(ratio);
    const std::size_t bytes = codec.capacity(count), parts = share(ratio, count);
    const std::uint64_t key = random_();
    std::vector<std::byte> expected(bytes);
    codec.encode(values_, residual_, {.key = key}, expected.data());
    const OnDevice payload(device_, stream_, bytes, 4 * (random_() % 4));
    cuda::random_k_encode(device_, stream_, input(), parts, key, payload.data());
    CHECK(payload.bytes() == expected);
    check_residual();

    for (const Store store : {Store::copy, Store::add}) {
      auto out = vector(Kind::normal, count, random_);
      const OnDevice there(device_, stream_, std::as_bytes(std::span(out)), 4 * (random_() % 4));
      codec.decode(expected, out, store);
      cuda::random_k_decode(device_, stream_, payload.data(), parts, {as<float>(there), count},
                            store);
      CHECK(same(DType::float32, there.bytes(), std::as_bytes(std::span(out)), true));
    }
    ++draws;
  }

 private:
  void begin(Kind kind, std::size_t count) {
    values_ = vector(kind, count, random_);
    residual_ = random_() % 4 ? vector(Kind::normal, count, random_) : std::vector<float>();
    const auto behind = 4 * (random_() % 4), apart = 4 * (random_() % 2);
    here_.emplace(device_, stream_, std::as_bytes(std::span(values_)), behind);
    left_.emplace(device_, stream_, std::as_bytes(std::span(residual_)), behind + apart);
  }

  Input input() const {
    return {as<float>(*here_), residual_.empty() ? nullptr : as<float>(*left_), values_.size()};
  }

  void check_residual() {
    CHECK(same(DType::float32, left_->bytes(), std::as_bytes(std::span(residual_)), false));
    CHECK(std::ranges::equal(here_->bytes(), std::as_bytes(std::span(values_))));
  }

  Device& device_ = Device::get(0);
  const Stream stream_{device_};
  std::mt19937_64 random_{seed()};
  std::vector<float> values_, residual_;
  std::optional<OnDevice> here_, left_;
};

void test() {
  Selections selections;
  auto& random = selections.random();
  for (int kind = 0; kind < kKinds; ++kind) {
    for (const std::size_t count : {1, 7, 100, 1024, 1025, 3333, 20001, 70001}) {
      if (count > 5000 && random() % 3) continue;
      const double ratios[] = {0.001, 0.01, 0.1, 0.5, 1.0};
      for (const std::size_t block : {32, 1024, 1056, 65536}) {
        if (block == 32 && count > 5000) continue;
        if (random() % 2) continue;
        selections.block_top_k(static_cast<Kind>(kind), count, {ratios[random() % 5], block});
      }
      selections.random_k(static_cast<Kind>(kind), count, ratios[random() % 5]);
    }
  }
  CHECK(selections.blocks > 20);
  std::printf("%d times block top-k, %d times random-k\n", selections.blocks, selections.draws);
}

}  // namespace
}  // namespace ronde::cuda

int main() { ronde::cuda::test(); }
