// Block codecs on a device, against those of the processor, bit for bit.
#include "cuda/quantise.h"

#include <cstdio>
#include <optional>

#include "core/error.h"
#include "kernels/kernels.h"
#include "on_device.h"

namespace {

using namespace ronde;
using namespace ronde::cuda;

using Vector = std::vector<float>;
using Payload = std::vector<std::byte>;

struct Case {
  BlockCode code;
  std::size_t count;
  std::size_t parts = 1;
  std::size_t own = 0;  // the part that is values; none if there is no such part
  float factor = 1;
  bool feedback = true, leaves_decoded = false, in_place = false;
};

int bits_of(Code code) { return code == Code::e4m3 ? 8 : static_cast<int>(code) + 1; }

std::size_t bytes_of(const Case& c) {
  return block_bytes(bits_of(c.code.code), c.code.blocks.size, c.count);
}

std::span<const std::byte> bytes(const Vector& x) { return std::as_bytes(std::span(x)); }

bool same(const Vector& x, std::span<const std::byte> y) {
  return ronde::cuda::same(DType::float32, bytes(x), y, true);
}

bool finite(const Vector& x) {
  return std::ranges::all_of(x, [](float each) { return std::isfinite(each); });
}

class Codecs {
 public:
  std::mt19937_64& random() { return random_; }
  std::size_t below(std::size_t limit) { return random_() % limit; }
  int cases = 0;

  /// Encodes a sum, and decodes it.
  void run(const Case& c) {
    const auto& codec = kernels().codec(c.code.code);
    const auto encoder = codec.encode[static_cast<int>(c.code.rounding)];
    // Parts.
    std::vector<Vector> values;
    std::vector<Payload> payloads(c.parts, Payload(bytes_of(c)));
    std::vector<std::unique_ptr<OnDevice>> parts;
    std::vector<const void*> pointers;
    Vector sum(c.count);
    for (std::size_t i = 0; i < c.parts; ++i) {
      values.push_back(vector(c.count, c.code.blocks.size));
      if (i == c.own) {
        for (std::size_t k = 0; k < c.count; ++k)
          sum[k] = i == 0 ? values[i][k] : sum[k] + values[i][k];
        parts.push_back(std::make_unique<OnDevice>(device_, stream_, bytes(values[i]), behind()));
      } else {
        encoder(c.code.blocks, values[i].data(), nullptr, c.count, draw(), payloads[i].data());
        const auto store = i == 0 ? Store::copy : Store::add;
        CHECK(codec.decode[static_cast<int>(store)](c.code.blocks, payloads[i].data(), sum.data(),
                                                    c.count));
        parts.push_back(std::make_unique<OnDevice>(device_, stream_, payloads[i], behind()));
      }
      pointers.push_back(parts.back()->data());
    }
    // The processor's way.
    Vector residual = vector(c.count, c.code.blocks.size);
    const OnDevice residual_there(device_, stream_, bytes(residual), behind());
    const Draw at = draw();
    Payload payload(bytes_of(c));
    const auto scaled = c.feedback ? std::span(residual) : std::span<float>();
    prescale({.dtype = DType::float32, .prescale = c.factor}, sum.data(), c.count);
    prescale({.dtype = DType::float32, .prescale = c.factor}, scaled.data(), scaled.size());
    bool all_finite = finite(sum);
    if (c.feedback) {
      Vector both = sum;
      for (std::size_t i = 0; i < c.count; ++i) both[i] += residual[i];
      all_finite = finite(both);
    }
    encoder(c.code.blocks, sum.data(), c.feedback ? residual.data() : nullptr, c.count, at,
            payload.data());
    postscale({.dtype = DType::float32, .divisor = c.factor}, scaled.data(), scaled.size());
    Vector decoded(c.count);
    CHECK(codec.decode[0](c.code.blocks, payload.data(), decoded.data(), c.count));
    // The device's.
    const OnDevice payload_there(device_, stream_, bytes_of(c), behind());
    const OnDevice fresh(device_, stream_, c.count * sizeof(float), behind());
    const bool in_place = c.in_place && c.own < c.parts;
    const auto& decoded_there = in_place ? *parts[c.own] : fresh;
    std::vector<std::uint32_t> found(1 + c.parts);
    const OnDevice flags(device_, stream_, std::as_bytes(std::span(found)));
    auto* const words = reinterpret_cast<unsigned*>(flags.data());
    Encoded to{.count = c.count,
               .payload = payload_there.data(),
               .residual = c.feedback ? floats(residual_there) : nullptr,
               .decoded = c.leaves_decoded ? floats(decoded_there) : nullptr,
               .not_finite = words,
               .draw = at};
    cuda::encode(device_, stream_, c.code,
                 {.parts = pointers, .own = c.own, .factor = c.factor, .bad_scales = words + 1},
                 to);
    CHECK(payload_there.bytes() == payload);
    CHECK(same(residual, residual_there.bytes()));
    if (c.leaves_decoded) CHECK(same(decoded, decoded_there.bytes()));
    found[0] = !all_finite;
    CHECK(std::ranges::equal(flags.bytes(), std::as_bytes(std::span(found))));
    check_decoding(c, payload, payload_there);
    for (std::size_t i = 0; i < c.parts; ++i) {
      if (i == c.own && !(in_place && c.leaves_decoded))
        CHECK(same(values[i], parts[i]->bytes()));
      else if (i != c.own)
        CHECK(parts[i]->bytes() == payloads[i]);
    }
    ++cases;
  }

  /// Scales that no encoder writes are reported, wherever they are, and others are not.
  void run_bad_scale(const BlockCode& code, std::size_t count) {
    const Case c{.code = code, .count = count};
    const int bits = bits_of(code.code);
    const std::size_t block = sizeof(float) + code.blocks.size * bits / 8;
    const std::size_t blocks = (count + code.blocks.size - 1) / code.blocks.size;
    for (const float scale : {-1.0f, 0x1.8p127f, HUGE_VALF, 0x1p-127f, -0.0f, -HUGE_VALF, 2.0f}) {
      Payload payload(bytes_of(c));
      for (auto& byte : payload) byte = static_cast<std::byte>(random_());
      for (std::size_t i = 0; i < blocks; ++i)
        std::memset(payload.data() + i * block, 0, sizeof scale);
      std::memcpy(payload.data() + below(blocks) * block, &scale, sizeof scale);
      Vector out(count);
      const bool good =
          kernels().codec(code.code).decode[0](code.blocks, payload.data(), out.data(), count);
      const OnDevice there(device_, stream_, payload), fresh(device_, stream_, count * 4);
      std::uint32_t found[4] = {};
      const OnDevice flags(device_, stream_, std::as_bytes(std::span(found)));
      auto* const words = reinterpret_cast<unsigned*>(flags.data());
      cuda::decode(device_, stream_, code, there.data(), {floats(fresh), count}, Store::copy,
                   words);
      const OnDevice zeros(device_, stream_, Payload(bytes_of(c)));
      const void* const parts[] = {zeros.data(), there.data(), zeros.data()};
      const OnDevice encoded(device_, stream_, bytes_of(c));
      cuda::encode(device_, stream_, code, {.parts = parts, .bad_scales = words + 1},
                   {.count = count, .payload = encoded.data()});
      std::memcpy(found, flags.bytes().data(), sizeof found);
      CHECK(found[0] == !good && found[2] == !good && !found[1] && !found[3]);
      ++cases;
    }
  }

  template <class F>
  void refuses(F f) {
    bool refused = false;
    try {
      f(device_, stream_);
    } catch (const ArgumentError&) {
      refused = true;
    }
    CHECK(refused);
  }

 private:
  static float* floats(const OnDevice& memory) { return reinterpret_cast<float*>(memory.data()); }

  std::size_t behind() { return below(4) * sizeof(float); }

  /// At any position.
  Draw draw() { return {random_(), random_() >> below(64)}; }

  /// Of several kinds, which change from block to block: extreme, equal, halves of a step, zeros,
  /// denormal, or not finite.
  Vector vector(std::size_t count, std::size_t block) {
    Vector x(count);
    std::normal_distribution<float> normal;
    std::size_t kind = 0;
    float unit = 1;
    for (std::size_t i = 0; i < count; ++i) {
      if (i % block == 0) {
        kind = below(12);
        unit = std::exp2f(normal(random_) * (below(4) ? 4 : 50));
      }
      const auto bits = static_cast<std::uint32_t>(random_());
      switch (kind) {
        case 0:
          x[i] = below(2) ? 0.0f : -0.0f;
          break;
        case 1:
          x[i] = std::bit_cast<float>(bits & 0x807fffff);
          break;
        case 2:
          x[i] = below(block) ? normal(random_) : std::bit_cast<float>(bits | 0x7f800000);
          break;
        case 3:  // finite, of any size
          x[i] = std::bit_cast<float>(bits & 0xbfffffff) * (below(8) ? 1.0f : 0x1p100f);
          break;
        case 4:  // the largest there are
          x[i] = std::bit_cast<float>((bits & 0x80000007) | 0x7f7ffff8);
          break;
        case 5:  // near the least that is normal
          x[i] = std::bit_cast<float>((bits & 0x80ffffff) | 0x00000001);
          break;
        case 6:
        case 7:  // ties
          x[i] = (static_cast<float>(below(256)) - 128) * 0.5f * unit;
          break;
        default:
          x[i] = normal(random_) * unit;
      }
    }
    return x;
  }

  void check_decoding(const Case& c, const Payload& payload, const OnDevice& there) {
    for (const auto store : {Store::copy, Store::add}) {
      Vector out = vector(c.count, 128);
      const OnDevice out_there(device_, stream_, bytes(out), behind());
      const std::uint32_t clear = 0;
      const OnDevice flag(device_, stream_, std::as_bytes(std::span(&clear, 1)));
      CHECK(
          kernels()
              .codec(c.code.code)
              .decode[static_cast<int>(store)](c.code.blocks, payload.data(), out.data(), c.count));
      cuda::decode(device_, stream_, c.code, there.data(), {floats(out_there), c.count}, store,
                   reinterpret_cast<unsigned*>(flag.data()));
      CHECK(same(out, out_there.bytes()));
      CHECK(flag.bytes() == Payload(4));
    }
  }

  Device& device_ = Device::get(0);
  const Stream stream_{device_};
  std::mt19937_64 random_{seed()};
};

constexpr std::size_t kCounts[] = {1, 7, 100, 1024, 1025, 3333, 20000};

void run_linear(Codecs& codecs, int bits) {
  const std::size_t group = group_of(bits);
  for (const std::size_t wanted :
       {std::size_t{1}, std::size_t{512}, std::size_t{1024}, std::size_t{1536}, std::size_t{2048},
        std::size_t{4096}, 1 + codecs.below(kMaxBlock)}) {
    const std::size_t size = (wanted + group - 1) / group * group;
    for (int norm = 0; norm < 3; ++norm) {
      const auto rounding = static_cast<Rounding>(codecs.below(2));
      const BlockCode code{linear_code(bits), {size, static_cast<Norm>(norm)}, rounding};
      const std::size_t parts = codecs.below(2) ? 1 : 1 + codecs.below(8);
      constexpr float kFactors[] = {1, 1, 0.25f, 1 / 3.0f, -0.7f};
      codecs.run({.code = code,
                  .count = kCounts[codecs.below(std::size(kCounts))],
                  .parts = parts,
                  .own = codecs.below(4) ? codecs.below(parts) : Sum::kNone,
                  .factor = kFactors[codecs.below(std::size(kFactors))],
                  .feedback = codecs.below(4) != 0,
                  .leaves_decoded = codecs.below(2) != 0,
                  .in_place = codecs.below(2) != 0});
    }
  }
}

/// So many that threads go on to other blocks, which are for several warps.
void run_long(Codecs& codecs) {
  constexpr std::size_t kLong = 300'000;
  for (const std::size_t size : {1536, 4096}) {
    const auto norm = size == 1536 ? Norm::max : Norm::mean;
    codecs.run({.code = {Code::linear8, {size, norm}, Rounding::stochastic}, .count = kLong});
  }
}

void run_refusals(Codecs& codecs) {
  const float* const values = nullptr;
  const auto refuses = [&](const BlockCode& code) {
    codecs.refuses([&](Device& device, const Stream& stream) {
      cuda::encode(device, stream, code, values, {.count = 0, .payload = nullptr});
    });
    codecs.refuses([&](Device& device, const Stream& stream) {
      cuda::decode(device, stream, code, nullptr, {}, Store::copy, nullptr);
    });
  };
  refuses({Code::float16, {128}});
  refuses({Code::linear8, {0}});
  refuses({Code::linear8, {4096 + 128}});
  refuses({linear_code(3), {256}});
  refuses({Code::e4m3, {256}});
  refuses({Code::e4m3, {128}, Rounding::stochastic});
  for (const std::size_t parts : {0, 9}) {
    const std::vector<const void*> pointers(parts);
    codecs.refuses([&](Device& device, const Stream& stream) {
      cuda::encode(device, stream, {Code::linear8, {128}}, {.parts = pointers},
                   {.count = 0, .payload = nullptr});
    });
  }
}

}  // namespace

int main() {
  Codecs codecs;
  for (int bits = 1; bits <= 8; ++bits) {
    run_linear(codecs, bits);
    codecs.run_bad_scale({linear_code(bits), {1024}}, 3000);
  }
  for (const std::size_t count : kCounts) {
    for (const std::size_t parts : {1, 3, 8}) {
      const std::size_t own = codecs.below(4) ? codecs.below(parts) : Sum::kNone;
      const float factor = codecs.below(2) ? 1 : 0.3f;
      codecs.run({.code = {Code::e4m3, {128}},
                  .count = count,
                  .parts = parts,
                  .own = own,
                  .factor = factor,
                  .feedback = codecs.below(4) != 0,
                  .leaves_decoded = codecs.below(2) != 0});
    }
  }
  codecs.run_bad_scale({Code::e4m3, {128}}, 1000);
  run_long(codecs);
  run_refusals(codecs);
  std::printf("%d cases\n", codecs.cases);
}
