// What is shown of texts from elsewhere.
#include "core/text.h"

#include "check.h"

int main() {
  using ronde::printable;
  CHECK(printable("größe 勾配 🎈, C:\\x") == "größe 勾配 🎈, C:\\x");
  CHECK(printable("a\nb\r\t\x1b[31m\x7f") == "a\\nb\\r\\t\\x1b[31m\\x7f");
  CHECK(printable("\u009b1m \u2028 \u202e \U000e0041") == "\\x9b1m \\u2028 \\u202e \\U000e0041");
  // No UTF-8: a byte that continues nothing, a character cut off, one too long, a surrogate.
  CHECK(printable("\x80 \xe5\x8b") == "\\x80 \\xe5\\x8b");
  CHECK(printable("\xc0\x8a \xed\xa0\x80") == "\\xc0\\x8a \\xed\\xa0\\x80");
  CHECK(printable(printable("a\nb")) == printable("a\nb"));
  CHECK(ronde::printable_lines("a\n\x1b b") == "a\n\\x1b b");
  std::puts("text: ok");
}
