#include "core/text.h"

#include <cstdint>
#include <cstdio>

namespace ronde {
namespace {

struct Character {
  std::uint32_t code;
  std::size_t bytes;  // 0 where there is no valid UTF-8
};

/// The first one of a text that is not empty (RFC 3629).
Character first_of(std::string_view text) {
  const auto byte = [&](std::size_t i) -> std::uint32_t {
    return static_cast<unsigned char>(text[i]);
  };
  const auto lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  const std::size_t bytes = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc0 || lead > 0xf4 || text.size() < bytes) return {lead, 0};
  auto code = lead & (0x7fu >> bytes);
  for (std::size_t i = 1; i < bytes; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return {lead, 0};
    code = code << 6 | (byte(i) & 0x3f);
  }
  constexpr std::uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool valid = code >= kLeast[bytes] && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff);
  return {valid ? code : lead, valid ? bytes : 0};
}

/// Characters that are not shown but change what is: controls, ends of lines, directions, joiners.
bool is_hidden(std::uint32_t code) {
  constexpr std::uint32_t kRanges[][2] = {{0, 0x1f},        {0x7f, 0x9f},      {0xad, 0xad},
                                          {0x061c, 0x061c}, {0x180e, 0x180e},  {0x200b, 0x200f},
                                          {0x2028, 0x202e}, {0x2060, 0x206f},  {0xfeff, 0xfeff},
                                          {0xfff9, 0xfffb}, {0xe0000, 0xe007f}};
  for (const auto& [first, last] : kRanges) {
    if (first <= code && code <= last) return true;
  }
  return false;
}

/// As Python writes it.
std::string escaped(std::uint32_t code) {
  if (code == '\n') return "\\n";
  if (code == '\r') return "\\r";
  if (code == '\t') return "\\t";
  char text[16];
  std::snprintf(text, sizeof text,
                code < 0x100     ? "\\x%02x"
                : code < 0x10000 ? "\\u%04x"
                                 : "\\U%08x",
                static_cast<unsigned>(code));
  return text;
}

std::string shown(std::string_view text, bool keeps_lines) {
  std::string result;
  while (!text.empty()) {
    const auto [code, bytes] = first_of(text);
    if (bytes == 0 || (is_hidden(code) && !(keeps_lines && code == '\n')))
      result += escaped(code);
    else
      result += text.substr(0, bytes);
    text.remove_prefix(bytes ? bytes : 1);
  }
  return result;
}

}  // namespace

std::string printable(std::string_view text) { return shown(text, false); }

std::string printable_lines(std::string_view text) { return shown(text, true); }

std::string seconds_text(double seconds) {
  char text[32];
  std::snprintf(text, sizeof text, seconds < 10 ? "%.1f s" : "%.0f s", seconds);
  return text;
}

std::string ranges(const std::vector<int>& numbers) {
  std::string text;
  for (std::size_t i = 0; i < numbers.size();) {
    std::size_t j = i;
    while (j + 1 < numbers.size() && numbers[j + 1] == numbers[j] + 1) ++j;
    if (i) text += ",";
    text += std::to_string(numbers[i]);
    if (j > i) text.append("-").append(std::to_string(numbers[j]));
    i = j + 1;
  }
  return text;
}

}  // namespace ronde
