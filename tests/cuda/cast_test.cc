// The half types as payloads on a device, and float64 as float32, against those of the processor,
// bit for bit.
#include "cuda/cast.h"

#include <cstdio>
#include <limits>

#include "compress/cast.h"
#include "on_device.h"

namespace {

using namespace ronde;
using namespace ronde::cuda;

std::span<const std::byte> bytes_of(const auto& vector) { return std::as_bytes(std::span(vector)); }

/// All that may be special in a half type: ties, what is just too large, subnormals, NaN.
constexpr std::uint32_t kSpecial[] = {
    0x00000000, 0x80000000, 0x00000001, 0x807fffff, 0x33000000, 0x33000001, 0x337fffff, 0x33800000,
    0xb3c00000, 0x387fe000, 0x387fefff, 0x387ff000, 0x38800000, 0x3f801000, 0x3f803000, 0x3f808000,
    0x3f818000, 0xbf807fff, 0x477fe000, 0x477fefff, 0x477ff000, 0xc77ff000, 0x47800000, 0x7f7effff,
    0x7f7f7fff, 0x7f7f8000, 0x7f7fffff, 0xff7fffff, 0x7f800000, 0xff800000, 0x7f800001, 0xff801fff,
    0x7fa00000, 0x7fc00000, 0xffc12345, 0x7fffffff};

enum class Kind { moderate, any_bits, special, one_not_finite };

class Casts {
 public:
  struct Case {
    Code code;
    std::size_t count;
    bool residual;
    std::size_t behind[3];  // elements after what is well aligned: values, residual, payload
    Kind kind;
  };

  void run(const Case& c) {
    encode(c);
    decode(c);
    ++cases;
  }

  /// float64 and float32, with those first that are special.
  void convert(std::size_t count, std::size_t wide_behind, std::size_t narrow_behind) {
    std::vector<double> wide(count);
    for (std::size_t i = 0; i < count; ++i) {
      const std::uint64_t special = kSpecial[i % std::size(kSpecial)];
      const double exact = std::bit_cast<float>(static_cast<std::uint32_t>(special));
      const auto bits = std::bit_cast<std::uint64_t>(exact);
      // A tie of two float32, what is beside it, and anything.
      const std::uint64_t all[] = {bits,
                                   bits + (1u << 28),
                                   bits + (3u << 28),
                                   bits + (1u << 28) - 1,
                                   bits + (1u << 28) + 1,
                                   special << 32 | random_() >> 32,
                                   random_()};
      wide[i] = std::bit_cast<double>(all[i / std::size(kSpecial) % 7]);
    }
    std::vector<float> short_ones(count);
    for (std::size_t i = 0; i < count; ++i) short_ones[i] = static_cast<float>(wide[i]);
    const OnDevice there(device_, stream_, bytes_of(wide), 8 * wide_behind);
    const OnDevice converted(device_, stream_, 4 * count, 4 * narrow_behind);
    narrow(device_, stream_, reinterpret_cast<const double*>(there.data()),
           reinterpret_cast<float*>(converted.data()), count);
    CHECK(same(DType::float32, converted.bytes(), bytes_of(short_ones), false));
    CHECK(same(DType::float64, there.bytes(), bytes_of(wide), false));
    for (std::size_t i = 0; i < count; ++i) {
      if (i % 3 == 0)
        short_ones[i] = std::bit_cast<float>(static_cast<std::uint32_t>(random_()) | 0x7f800000);
      wide[i] = static_cast<double>(short_ones[i]);
    }
    const OnDevice source(device_, stream_, bytes_of(short_ones), 4 * narrow_behind);
    widen(device_, stream_, reinterpret_cast<const float*>(source.data()),
          reinterpret_cast<double*>(there.data()), count);
    CHECK(same(DType::float64, there.bytes(), bytes_of(wide), false));
    ++cases;
  }

  std::mt19937_64& random() { return random_; }
  int cases = 0;

 private:
  std::vector<float> draw(std::size_t count, Kind kind) {
    std::normal_distribution<float> normal;
    std::vector<float> values(count);
    for (auto& x : values) {
      x = normal(random_) * std::exp2f(normal(random_));
      if (kind == Kind::any_bits) x = std::bit_cast<float>(static_cast<std::uint32_t>(random_()));
      if (kind == Kind::special)
        x = std::bit_cast<float>(kSpecial[random_() % std::size(kSpecial)]);
    }
    if (kind == Kind::one_not_finite)
      values[random_() % count] = random_() % 2 ? 3.4e38f : std::numeric_limits<float>::quiet_NaN();
    return values;
  }

  void encode(const Case& c) {
    const auto values = draw(c.count, c.kind);
    // Of a NaN and something else the sum is the hardware's choice.
    const bool exact = !c.residual || c.kind == Kind::moderate;
    auto residual = c.residual ? draw(c.count, Kind::moderate) : std::vector<float>();
    const Cast cast(c.code);
    std::vector<std::byte> payload(2 * c.count);
    const OnDevice there(device_, stream_, bytes_of(values), 4 * c.behind[0]);
    const OnDevice kept(device_, stream_, bytes_of(residual), 4 * c.behind[1]);
    const OnDevice sent(device_, stream_, payload.size(), 2 * c.behind[2]);
    const std::uint32_t before = random_() % 4 == 0 ? 1 : 0;
    const OnDevice flag(device_, stream_, bytes_of(std::vector{before}));
    encode_cast(device_, stream_,
                {.code = c.code,
                 .values = reinterpret_cast<const float*>(there.data()),
                 .residual = c.residual ? reinterpret_cast<float*>(kept.data()) : nullptr,
                 .count = c.count,
                 .payload = sent.data(),
                 .not_finite = reinterpret_cast<std::uint32_t*>(flag.data())});
    cast.encode(values, residual, {}, payload.data());
    const auto dtype = c.code == Code::float16 ? DType::float16 : DType::bfloat16;
    CHECK(same(dtype, sent.bytes(), payload, !exact));
    CHECK(same(DType::float32, kept.bytes(), bytes_of(residual), false));
    CHECK(same(DType::float32, there.bytes(), bytes_of(values), false));
    std::vector<float> decoded(c.count);
    cast.decode(payload, decoded, Store::copy);
    std::uint32_t expected = before;
    for (const float x : decoded) expected |= std::isfinite(x) ? 0 : 1;
    CHECK(same(DType::uint32, flag.bytes(), bytes_of(std::vector{expected}), false));
  }

  void decode(const Case& c) {
    std::vector<std::byte> payload(2 * c.count);
    for (auto& byte : payload) byte = static_cast<std::byte>(random_());
    const Cast cast(c.code);
    const OnDevice sent(device_, stream_, payload, 2 * c.behind[2]);
    auto expected = draw(c.count, c.kind);
    const OnDevice out(device_, stream_, bytes_of(expected), 4 * c.behind[0]);
    for (const Store store : {Store::add, Store::copy}) {
      decode_cast(device_, stream_,
                  {c.code, sent.data(), reinterpret_cast<float*>(out.data()), c.count, store});
      cast.decode(payload, expected, store);
      CHECK(same(DType::float32, out.bytes(), bytes_of(expected), store == Store::add));
    }
    CHECK(sent.bytes() == payload);
  }

  Device& device_ = Device::get(0);
  const Stream stream_{device_};
  std::mt19937_64 random_{seed()};
};

}  // namespace

int main() {
  Casts casts;
  auto& random = casts.random();
  for (const Code code : {Code::float16, Code::bfloat16}) {
    for (const std::size_t count : {1, 3, 4, 7, 100, 1024, 1025, 3333, 20000, 70001}) {
      for (const bool residual : {false, true}) {
        for (const Kind kind :
             {Kind::moderate, Kind::any_bits, Kind::special, Kind::one_not_finite}) {
          if (count > 4000 && kind != Kind::moderate && kind != Kind::any_bits) continue;
          const std::size_t behind = random() % 9;
          switch (random() % 3) {
            case 0:
              casts.run({code, count, residual, {0, 0, 0}, kind});
              break;
            case 1:
              casts.run({code, count, residual, {behind, behind, behind}, kind});
              break;
            default:
              casts.run({code, count, residual, {behind, random() % 9, random() % 9}, kind});
          }
        }
      }
    }
  }
  for (const std::size_t count : {1, 2, 7, 100, 1024, 1025, 3333, 20000}) {
    const std::size_t behind = random() % 9;
    casts.convert(count, 0, 0);
    casts.convert(count, behind, behind);
    casts.convert(count, behind, random() % 9);
  }
  std::printf("%d casts\n", casts.cases);
}
