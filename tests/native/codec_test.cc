// Decoders of the compressors on payloads that nobody has written: truncated, extended, with bits
// flipped, or random. They throw ArgumentError or decode to something, and touch nothing outside:
// payloads and values are exactly as large as they must be, so that a sanitizer sees it.
//
// RONDE_FUZZ_CASES=1000000 is the number of cases for each compressor.
#include <bit>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "compress/quantiser.h"
#include "compress/random_k.h"
#include "compress/shared_scale.h"
#include "compress/table.h"
#include "compress/threshold.h"
#include "compress/top_k.h"
#include "core/error.h"

namespace {

using namespace ronde;

class Fuzzer {
 public:
  explicit Fuzzer(const Compressor& compressor) : Fuzzer(compressor, 3 * compressor.grain() + 1) {}
  Fuzzer(const Compressor& compressor, std::size_t longest)
      : compressor_(compressor), longest_(longest) {}

  void run(long cases) {
    for (long i = 0; i < cases; ++i) one();
    CHECK(cases < 100 || (decoded_ > 0 && refused_ > 0));
  }

 private:
  std::size_t below(std::size_t limit) { return random_() % limit; }

  /// Mostly short, sometimes of some blocks.
  std::size_t length() { return below(below(16) ? 70 : longest_ + 1); }

  std::vector<std::byte> payload(std::size_t count) {
    std::vector<float> values(count), residual(below(2) ? count : 0);
    for (float& value : values) {
      const auto bits = static_cast<std::uint32_t>(random_());
      value = below(64) ? static_cast<float>(bits) - 0x1p31f : std::bit_cast<float>(bits);
    }
    std::vector<std::byte> payload(compressor_.capacity(count));
    const Draw draw = {random_(), compressor_.grain() * below(1000)};
    payload.resize(compressor_.encode(values, residual, draw, payload.data()));
    return payload;
  }

  void spoil(std::vector<std::byte>& payload) {
    switch (below(4)) {
      case 0:
        payload.resize(below(payload.size() + 1));
        break;
      case 1:
        payload.resize(payload.size() + 1 + below(64), std::byte{1});
        break;
      case 2:
        for (auto& byte : payload) byte = static_cast<std::byte>(random_());
        break;
      default:
        for (std::size_t flips = below(4); flips > 0 && !payload.empty(); --flips)
          payload[below(payload.size())] ^= static_cast<std::byte>(1 << below(8));
    }
    payload.shrink_to_fit();
  }

  void one() {
    const std::size_t count = length();
    auto bytes = payload(count);
    spoil(bytes);
    const auto out = std::make_unique<float[]>(count);
    try {
      compressor_.decode(bytes, {out.get(), count}, below(2) ? Store::add : Store::copy);
      ++decoded_;
    } catch (const ArgumentError&) {
      ++refused_;
    }
  }

  const Compressor& compressor_;
  const std::size_t longest_;
  std::mt19937_64 random_{42};
  long decoded_ = 0, refused_ = 0;
};

}  // namespace

int main() {
  const char* wanted = std::getenv("RONDE_FUZZ_CASES");
  const long cases = wanted ? std::atol(wanted) : 2000;
  for (const char* simd : {"avx512", "avx2", "baseline"}) {
    const KernelTable* table = kernels(simd);
    if (!table) continue;
    for (const auto name : compressor_names()) Fuzzer(*make_compressor(name, *table)).run(cases);
    for (int bits = 1; bits <= 8; ++bits)
      Fuzzer(Quantiser({.bits = bits, .block = group_of(bits)}, *table)).run(cases);
    for (int bits = 2; bits <= 8; ++bits)
      Fuzzer(SharedScale(bits, 128, Rounding::nearest, *table)).run(cases);
    constexpr std::size_t kLong = 70'000;  // more than a block of offsets
    for (const double ratio : {0.01, 0.3, 0.99}) {
      Fuzzer(TopK(ratio, *table), kLong).run(cases);
      Fuzzer(BlockTopK(ratio, 64, *table)).run(cases);
      Fuzzer(RandomK(ratio, *table)).run(cases);
    }
    Fuzzer(Threshold(0x1p30f, *table)).run(cases);
  }
  std::puts("codec: ok");
}
