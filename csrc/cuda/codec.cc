#include "cuda/codec.h"

#include "cuda/cast.h"
#include "cuda/kernels/quantise.h"
#include "cuda/reduce.h"

namespace ronde::cuda {

Codec::Codec(Device& device, const BlockCode& code)
    : device_(device),
      code_(code),
      half_(code.code == Code::float16 || code.code == Code::bfloat16) {}

void Codec::encode(StreamHandle stream, const float* values, const Encoded& to) const {
  if (!half_) return cuda::encode(device_, stream, code_, values, to);
  encode_cast(device_, stream,
              {.code = code_.code,
               .values = values,
               .residual = to.residual,
               .count = to.count,
               .payload = static_cast<std::byte*>(to.payload),
               .not_finite = to.not_finite});
}

void Codec::encode(StreamHandle stream, const Sum& sum, const Encoded& to, float* total) const {
  if (!half_ && sum.parts.size() <= kMostParts)
    return cuda::encode(device_, stream, code_, sum, to);
  add(stream, sum, {total, to.count});
  if (!half_) {
    const void* const part = total;
    const Sum whole{.parts = {&part, 1}, .own = 0, .factor = sum.factor};
    return cuda::encode(device_, stream, code_, whole, to);
  }
  const Reduction times{.prescale = sum.factor}, divided{.divisor = sum.factor};
  scale(stream, times, total, to.count);
  if (to.residual) scale(stream, times, to.residual, to.count);
  encode(stream, total, to);
  if (to.residual) scale(stream, divided, to.residual, to.count);
}

/// In their order.
void Codec::add(StreamHandle stream, const Sum& sum, std::span<float> total) const {
  for (std::size_t i = 0; i < sum.parts.size(); ++i) {
    const void* const part = sum.parts[i];
    if (i != sum.own) {
      decode(stream, part, total, i == 0 ? Store::copy : Store::add,
             sum.bad_scales ? sum.bad_scales + i : nullptr);
    } else if (i == 0) {
      device_.copy(stream, total.data(), part, total.size_bytes());
    } else {
      const void* const both[] = {total.data(), part};
      reduce_many(device_, stream, {}, total.data(), both, total.size());
    }
  }
}

void Codec::scale(StreamHandle stream, const Reduction& by, float* values,
                  std::size_t count) const {
  if (!by.scales()) return;
  cuda::scale(device_, stream, by, values, values, count);
}

void Codec::decode(StreamHandle stream, const void* payload, std::span<float> out, Store store,
                   unsigned* bad_scale) const {
  if (!half_) return cuda::decode(device_, stream, code_, payload, out, store, bad_scale);
  decode_cast(device_, stream,
              {.code = code_.code,
               .payload = static_cast<const std::byte*>(payload),
               .out = out.data(),
               .count = out.size(),
               .store = store});
}

}  // namespace ronde::cuda
