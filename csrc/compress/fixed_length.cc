#include "compress/fixed_length.h"

#include <string>

#include "core/error.h"

namespace ronde {

std::size_t FixedLength::encode(std::span<const float> values, std::span<float> residual, Draw draw,
                                std::byte* payload) const {
  codec_.encode[static_cast<int>(rounding_)](blocks_, values.data(),
                                             residual.empty() ? nullptr : residual.data(),
                                             values.size(), draw, payload);
  return capacity(values.size());
}

void FixedLength::decode(std::span<const std::byte> payload, std::span<float> out,
                         Store store) const {
  if (const std::size_t length = capacity(out.size()); payload.size() != length)
    throw ArgumentError("a payload of " + std::to_string(out.size()) + " values has " +
                        std::to_string(length) + " bytes, not " + std::to_string(payload.size()));
  if (!codec_.decode[static_cast<int>(store)](blocks_, payload.data(), out.data(), out.size()))
    throw ArgumentError("the payload holds a scale that no encoder writes");
}

}  // namespace ronde
