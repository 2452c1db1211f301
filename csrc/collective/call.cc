#include "collective/call.h"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstring>
#include <string_view>

#include "core/text.h"

namespace ronde {
namespace {

/// Over fields, each closed by its length so that neighbours cannot run together; eight bytes at a
/// time, as a step waits for the one before.
class Hash {
 public:
  void add(std::string_view text) {
    const std::size_t length = text.size();
    for (; !text.empty(); text.remove_prefix(std::min<std::size_t>(text.size(), 8))) {
      std::uint64_t word = 0;
      std::memcpy(&word, text.data(), std::min<std::size_t>(text.size(), 8));
      add(word);
    }
    add(length);
  }
  void add(std::uint64_t value) {
    value_ = (value_ ^ value) * 0x9e3779b97f4a7c15;
    value_ ^= value_ >> 32;  // a multiplication carries upwards only
  }
  void add(double value) { add(std::bit_cast<std::uint64_t>(value)); }

  std::uint64_t value() const { return value_; }

 private:
  std::uint64_t value_ = 0xcbf29ce484222325;
};

// Not by streams: a process may hold a second C++ library, and their locales get into each other's
// way.
std::string text_of(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", value);
  return text;
}

/// As Python writes a tuple.
std::string text_of(const std::vector<std::int64_t>& shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (i) text += ", ";
    text += std::to_string(shape[i]);
  }
  return text + (shape.size() == 1 ? ",)" : ")");
}

}  // namespace

std::uint64_t Call::fingerprint() const {
  Hash hash;
  hash.add(kind);
  hash.add(name);
  hash.add(dtype ? std::uint64_t{1} + static_cast<std::uint64_t>(*dtype) : 0);
  if (shape) {
    hash.add(shape->size());
    for (std::size_t i = any_first_dimension ? 1 : 0; i < shape->size(); ++i)
      hash.add(static_cast<std::uint64_t>((*shape)[i]));
  }
  hash.add(op);
  hash.add(static_cast<std::uint64_t>(static_cast<std::int64_t>(root)));
  hash.add(prescale);
  hash.add(postscale);
  hash.add(detail);
  return hash.value();
}

std::size_t Call::bytes() const {
  if (!dtype || !shape) return 0;
  std::size_t bytes = size_of(*dtype);
  for (const auto length : *shape) bytes *= static_cast<std::size_t>(length);
  return bytes;
}

std::string Call::text() const {
  std::vector<std::string> fields;
  if (dtype) fields.emplace_back(name_of(*dtype));
  if (shape) fields.push_back("shape " + text_of(*shape));
  if (!op.empty()) fields.push_back("op=" + op);
  if (root >= 0) fields.push_back("root=" + std::to_string(root));
  if (prescale != 1.0) fields.push_back("prescale_factor=" + text_of(prescale));
  if (postscale != 1.0) fields.push_back("postscale_factor=" + text_of(postscale));
  if (!detail.empty()) fields.push_back(detail);

  std::string text = kind;
  if (!name.empty()) text += " '" + name + "'";
  for (std::size_t i = 0; i < fields.size(); ++i) text += (i ? ", " : " (") + fields[i];
  if (!fields.empty()) text += ")";
  return printable(text);
}

}  // namespace ronde
