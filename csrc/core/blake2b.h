// BLAKE2b (RFC 7693): a hash that has no key here, and eight bytes.
#pragma once

#include <cstdint>
#include <string_view>

namespace ronde {

/// The digest as a number, its first byte being the lowest.
std::uint64_t blake2b(std::string_view text);

}  // namespace ronde
