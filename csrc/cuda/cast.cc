#include "cuda/cast.h"

#include <string>

#include "core/error.h"
#include "cuda/kernels/cast.h"

namespace ronde::cuda {
namespace {

constexpr std::size_t kItems = 4;  // of a packet

std::string kernel_of(const char* what, Code code) {
  if (code != Code::float16 && code != Code::bfloat16)
    throw ArgumentError("a cast is to float16 or bfloat16");
  return std::string(what) + (code == Code::float16 ? "_float16" : "_bfloat16");
}

void convert(Device& device, StreamHandle stream, const char* kernel, const ConvertFloats& how) {
  if (how.count) device.launch(stream, kernel, (how.count + kItems - 1) / kItems, how);
}

}  // namespace

void encode_cast(Device& device, StreamHandle stream, const CastEncoding& encoding) {
  const auto kernel = kernel_of("cast_encode", encoding.code);
  if (encoding.count == 0) return;
  device.launch(stream, kernel, (encoding.count + kItems - 1) / kItems,
                EncodeCasts{.values = encoding.values,
                            .residual = encoding.residual,
                            .payload = reinterpret_cast<u16*>(encoding.payload),
                            .not_finite = encoding.not_finite,
                            .count = encoding.count});
}

void decode_cast(Device& device, StreamHandle stream, const CastDecoding& decoding) {
  const bool adds = decoding.store == Store::add;
  const auto kernel = kernel_of(adds ? "cast_decode_add" : "cast_decode", decoding.code);
  if (decoding.count == 0) return;
  device.launch(stream, kernel, (decoding.count + kItems - 1) / kItems,
                DecodeCasts{.payload = reinterpret_cast<const u16*>(decoding.payload),
                            .out = decoding.out,
                            .count = decoding.count});
}

void narrow(Device& device, StreamHandle stream, const double* from, float* to, std::size_t count) {
  convert(device, stream, "cast_narrow", {.from = from, .to = to, .count = count});
}

void widen(Device& device, StreamHandle stream, const float* from, double* to, std::size_t count) {
  convert(device, stream, "cast_widen", {.from = from, .to = to, .count = count});
}

}  // namespace ronde::cuda
