// Text that is cut to fit, and text from elsewhere that is shown.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace ronde {

/// At most `bytes` of `text`, without half a character (of UTF-8) at the end.
inline std::string_view cut(std::string_view text, std::size_t bytes) {
  if (text.size() <= bytes) return text;
  while (bytes > 0 && (static_cast<unsigned char>(text[bytes]) & 0xc0) == 0x80) --bytes;
  return text.substr(0, bytes);
}

/// At most the last `bytes`, without half a character at the beginning.
inline std::string_view last(std::string_view text, std::size_t bytes) {
  if (text.size() <= bytes) return text;
  text.remove_prefix(text.size() - bytes);
  while (!text.empty() && (static_cast<unsigned char>(text[0]) & 0xc0) == 0x80)
    text.remove_prefix(1);
  return text;
}

/// The first ones, and says that something is missing.
inline std::string shortened(std::string_view text, std::size_t bytes) {
  return text.size() <= bytes ? std::string(text) : std::string(cut(text, bytes)) + " ...";
}

/// Numbers that grow, in words: "0-3,6".
std::string ranges(const std::vector<int>& numbers);

/// A text of a user or a peer, in one line: what could change the look of other lines, or a
/// terminal, is written like \x1b. Other UTF-8 stays as it is.
std::string printable(std::string_view text);

/// The same of each line of a text.
std::string printable_lines(std::string_view text);

/// "1.5 s"
std::string seconds_text(double seconds);

}  // namespace ronde
