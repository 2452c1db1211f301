#include "methods/integer_coding.h"

namespace ronde {

void HostIntegers::maxima(std::span<const float> values, std::span<float> residual,
                          std::span<float> maxima) {
  scale_.maxima(values, residual, maxima);
}

void HostIntegers::quantise(const Values& values, std::span<std::int8_t> out) {
  scale_.quantise(values.values, values.maxima, values.residual, values.key, out);
}

void HostIntegers::quantise(const Values& values, std::span<std::int16_t> out) {
  scale_.quantise(values.values, values.maxima, values.residual, values.key, out);
}

void HostIntegers::dequantise(const Sums<std::int8_t>& sums, std::span<float> out) {
  scale_.dequantise(sums.integers, sums.maxima, sums.factor, out);
}

void HostIntegers::dequantise(const Sums<std::int16_t>& sums, std::span<float> out) {
  scale_.dequantise(sums.integers, sums.maxima, sums.factor, out);
}

namespace {

cuda::SharedScale::Vector vector_of(std::span<const float> values, std::span<float> residual) {
  return {values.data(), residual.empty() ? nullptr : residual.data(), values.size()};
}

}  // namespace

GpuIntegers::GpuIntegers(const SharedScale& scale, const cuda::Queue& queue)
    : stream_(queue.stream), scale_(queue.device, scale.bits(), scale.grain(), scale.rounding()) {}

void GpuIntegers::maxima(std::span<const float> values, std::span<float> residual,
                         std::span<float> maxima) {
  scale_.maxima(stream_, vector_of(values, residual), maxima.data());
}

void GpuIntegers::quantise(const Values& values, std::span<std::int8_t> out) {
  scale_.quantise(stream_, vector_of(values.values, values.residual), values.maxima.data(),
                  values.key, out.data());
}

void GpuIntegers::quantise(const Values& values, std::span<std::int16_t> out) {
  scale_.quantise(stream_, vector_of(values.values, values.residual), values.maxima.data(),
                  values.key, out.data());
}

void GpuIntegers::dequantise(const Sums<std::int8_t>& sums, std::span<float> out) {
  scale_.dequantise(stream_, {sums.integers.data(), sums.maxima.data(), sums.factor}, out.data(),
                    out.size(), Store::copy);
}

void GpuIntegers::dequantise(const Sums<std::int16_t>& sums, std::span<float> out) {
  scale_.dequantise(stream_, {sums.integers.data(), sums.maxima.data(), sums.factor}, out.data(),
                    out.size(), Store::copy);
}

}  // namespace ronde
