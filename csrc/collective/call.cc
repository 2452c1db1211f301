#include "collective/call.h"

#include <bit>
#include <sstream>
#include <string_view>

namespace ronde {
namespace {

/// FNV-1a over fields, each closed by its length so that neighbours cannot run together.
class Hash {
 public:
  void add(std::string_view text) {
    for (const unsigned char c : text) step(c);
    add(text.size());
  }
  void add(std::uint64_t value) {
    for (int i = 0; i < 8; ++i) step(static_cast<unsigned char>(value >> (8 * i)));
  }
  void add(double value) { add(std::bit_cast<std::uint64_t>(value)); }

  std::uint64_t value() const { return value_; }

 private:
  void step(unsigned char byte) { value_ = (value_ ^ byte) * 0x100000001b3; }

  std::uint64_t value_ = 0xcbf29ce484222325;
};

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

std::string Call::text() const {
  std::ostringstream out;
  out << kind;
  if (!name.empty()) out << " '" << name << "'";
  const char* separator = " (";
  const auto field = [&](auto&&... parts) {
    out << separator;
    (out << ... << parts);
    separator = ", ";
  };
  if (dtype) field(name_of(*dtype));
  if (shape) {
    field("shape (");
    for (std::size_t i = 0; i < shape->size(); ++i) out << (i ? ", " : "") << (*shape)[i];
    out << (shape->size() == 1 ? ",)" : ")");
  }
  if (!op.empty()) field("op=", op);
  if (root >= 0) field("root=", root);
  if (prescale != 1.0) field("prescale_factor=", prescale);
  if (postscale != 1.0) field("postscale_factor=", postscale);
  if (!detail.empty()) field(detail);
  if (*separator == ',') out << ")";
  return out.str();
}

}  // namespace ronde
