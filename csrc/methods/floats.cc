#include "methods/floats.h"

#include <algorithm>

#include "collective/staging.h"
#include "compress/cast.h"
#include "cuda/cast.h"

namespace ronde {
namespace {

Code code_of(DType dtype) { return dtype == DType::float16 ? Code::float16 : Code::bfloat16; }

}  // namespace

void to_floats(Ranks& ranks, ConstBuffer from, DType dtype, std::span<float> to) {
  const auto* const wide = reinterpret_cast<const double*>(from.data);
  if (on_gpu(from)) {
    const auto [device, stream] = ranks.queue(from.device);
    if (is_half(dtype))
      cuda::decode_cast(device, stream,
                        {code_of(dtype), from.data, to.data(), to.size(), Store::copy});
    else
      cuda::narrow(device, stream, wide, to.data(), to.size());
  } else if (is_half(dtype)) {
    Cast(code_of(dtype)).decode({from.data, from.bytes}, to, Store::copy);
  } else {
    std::transform(wide, wide + to.size(), to.begin(),
                   [](double x) { return static_cast<float>(x); });
  }
}

void from_floats(Ranks& ranks, std::span<const float> from, DType dtype, Buffer to) {
  auto* const wide = reinterpret_cast<double*>(to.data);
  if (on_gpu(to)) {
    const auto [device, stream] = ranks.queue(to.device);
    if (is_half(dtype))
      cuda::encode_cast(device, stream,
                        {code_of(dtype), from.data(), nullptr, from.size(), to.data, nullptr});
    else
      cuda::widen(device, stream, from.data(), wide, from.size());
  } else if (is_half(dtype)) {
    Cast(code_of(dtype)).encode(from, {}, {}, to.data);
  } else {
    std::ranges::copy(from, wide);
  }
}

}  // namespace ronde
