#include "methods/draws.h"

#include <array>

#include "core/blake2b.h"

namespace ronde {
namespace {

using Block = std::array<std::uint64_t, 4>;

Block philox(Block x, std::uint64_t key) {
  std::uint64_t first = key, second = 0;
  for (int round = 0; round < 10; ++round) {
    const auto product = [](std::uint64_t a, std::uint64_t b) {
      return static_cast<unsigned __int128>(a) * b;
    };
    const auto p = product(0xd2e7470ee14c6c93, x[0]), q = product(0xca5a826395121157, x[2]);
    const auto high = [](auto wide) { return static_cast<std::uint64_t>(wide >> 64); };
    x = {high(q) ^ x[1] ^ first, static_cast<std::uint64_t>(q), high(p) ^ x[3] ^ second,
         static_cast<std::uint64_t>(p)};
    first += 0x9e3779b97f4a7c15;
    second += 0xbb67ae8584caa73b;
  }
  return x;
}

}  // namespace

std::uint64_t key_of(std::string_view seed, std::uint64_t step, std::string_view name) {
  std::string words(seed);
  words.append(" ").append(std::to_string(step)).append(" ").append(name);
  return blake2b(words);
}

void draw_uniform(std::uint64_t key, std::span<float> out) {
  // A block has 8 numbers, the lower half of a word before the upper. Blocks are counted from 1.
  Block block{};
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (i % 8 == 0) block = philox({i / 8 + 1, 0, 0, 0}, key);
    const auto bits = static_cast<std::uint32_t>(block[i % 8 / 2] >> (i % 2 * 32));
    out[i] = static_cast<float>(bits >> 8) * 0x1p-24f;
  }
}

}  // namespace ronde
