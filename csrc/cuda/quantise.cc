#include "cuda/quantise.h"

#include <algorithm>
#include <string>

#include "core/error.h"
#include "cuda/kernels/quantise.h"

namespace ronde::cuda {
namespace {

static_assert(static_cast<int>(NormOf::max) == static_cast<int>(Norm::max) &&
              static_cast<int>(NormOf::mean) == static_cast<int>(Norm::mean) &&
              static_cast<int>(NormOf::l2) == static_cast<int>(Norm::l2));

int bits_of(Code code) { return code == Code::e4m3 ? 8 : static_cast<int>(code) + 1; }

void check(const BlockCode& code) {
  if (code.code > Code::e4m3) throw ArgumentError("a device's block codes are linear or e4m3");
  const bool linear = code.code != Code::e4m3;
  const std::size_t group = group_of(bits_of(code.code)), size = code.blocks.size;
  const std::size_t most = linear ? kMaxBlock : kRow * kMostRowsE4M3;
  if (size == 0 || size % group || size > most)
    throw ArgumentError("a device's blocks of this code must be a multiple of " +
                        std::to_string(group) + " elements, up to " + std::to_string(most) +
                        ", not " + std::to_string(size));
  if (!linear && code.rounding != Rounding::nearest)
    throw ArgumentError("e4m3 is rounded to nearest");
}

BlockLayout layout_of(const BlockCode& code) {
  const std::size_t group = group_of(bits_of(code.code)), groups = code.blocks.size / group;
  const std::size_t most = kRow * (code.code == Code::e4m3 ? kMostRowsE4M3 : kMostRows) / group;
  BlockLayout layout{.size = static_cast<u32>(code.blocks.size), .doublings = 0, .rows = 0};
  while (groups > most << layout.doublings) ++layout.doublings;
  const std::size_t each = (groups + (std::size_t{1} << layout.doublings) - 1) >> layout.doublings;
  layout.rows = static_cast<u32>(each * group / kRow);
  return layout;
}

/// Threads that all blocks of values are for.
std::size_t threads_for(const BlockLayout& layout, std::size_t count) {
  return (count + layout.size - 1) / layout.size * (kRow << layout.doublings);
}

std::string kernel_of(const char* what, Code code) {
  return std::string(what) +
         (code == Code::e4m3 ? "_e4m3" : "_linear" + std::to_string(bits_of(code)));
}

}  // namespace

void encode(Device& device, StreamHandle stream, const BlockCode& code, const Sum& sum,
            const Encoded& to) {
  check(code);
  if (sum.parts.empty() || sum.parts.size() > kMostParts)
    throw ArgumentError("a device encodes the sum of 1 to " + std::to_string(kMostParts) +
                        " parts at once, not " + std::to_string(sum.parts.size()));
  if (to.count == 0) return;
  Encode arguments{.layout = layout_of(code),
                   .parts = {},
                   .part_count = static_cast<int>(sum.parts.size()),
                   .own = sum.own < sum.parts.size() ? static_cast<int>(sum.own) : -1,
                   .factor = sum.factor,
                   .residual = to.residual,
                   .decoded = to.decoded,
                   .payload = static_cast<u32*>(to.payload),
                   .count = to.count,
                   .key = to.draw.key,
                   .first = to.draw.first,
                   .norm = static_cast<NormOf>(code.blocks.norm),
                   .stochastic = code.rounding == Rounding::stochastic,
                   .not_finite = to.not_finite,
                   .bad_scales = sum.bad_scales};
  std::ranges::copy(sum.parts, arguments.parts);
  device.launch(stream, kernel_of("encode", code.code), threads_for(arguments.layout, to.count),
                arguments);
}

void decode(Device& device, StreamHandle stream, const BlockCode& code, const void* payload,
            std::span<float> out, Store store, unsigned* bad_scale) {
  check(code);
  if (out.empty()) return;
  const Decode arguments{.layout = layout_of(code),
                         .payload = static_cast<const u32*>(payload),
                         .out = out.data(),
                         .count = out.size(),
                         .adds = store == Store::add,
                         .bad_scale = bad_scale};
  device.launch(stream, kernel_of("decode", code.code), threads_for(arguments.layout, out.size()),
                arguments);
}

}  // namespace ronde::cuda
