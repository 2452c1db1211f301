#include "collective/call.h"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstring>
#include <string_view>

#include "core/hash.h"
#include "core/text.h"

namespace ronde {
namespace {

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
  if (known_fingerprint) return *known_fingerprint;
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
