#include "compress/fixed_length.h"

#include <string>

#include "core/error.h"

namespace ronde {

std::size_t FixedLength::encode(std::span<const float> values, std::span<float> residual, Draw draw,
                                std::byte* payload) const {
  codec_.encode[static_cast<int>(code_.rounding)](code_.blocks, values.data(),
                                                  residual.empty() ? nullptr : residual.data(),
                                                  values.size(), draw, payload);
  return capacity(values.size());
}

void FixedLength::decode(std::span<const std::byte> payload, std::span<float> out,
                         Store store) const {
  check_length(*this, out.size(), payload.size());
  if (!codec_.decode[static_cast<int>(store)](code_.blocks, payload.data(), out.data(), out.size()))
    throw ArgumentError(kBadScale);
}

void FixedLength::check_length(const Compressor& compressor, std::size_t count, std::size_t bytes) {
  if (const std::size_t length = compressor.capacity(count); bytes != length)
    throw ArgumentError("a payload of " + std::to_string(count) + " values has " +
                        std::to_string(length) + " bytes, not " + std::to_string(bytes));
}

}  // namespace ronde
