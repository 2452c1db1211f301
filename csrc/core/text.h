// Text that is cut to fit.
#pragma once

#include <string>
#include <string_view>

namespace ronde {

/// At most `bytes` of `text`, without half a character (of UTF-8) at the end.
inline std::string_view cut(std::string_view text, std::size_t bytes) {
  if (text.size() <= bytes) return text;
  while (bytes > 0 && (static_cast<unsigned char>(text[bytes]) & 0xc0) == 0x80) --bytes;
  return text.substr(0, bytes);
}

/// The same, and says that something is missing.
inline std::string shortened(std::string_view text, std::size_t bytes) {
  return text.size() <= bytes ? std::string(text) : std::string(cut(text, bytes)) + " ...";
}

}  // namespace ronde
