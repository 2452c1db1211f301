// Random numbers that are the same wherever seed, step and name are, and in every version.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace ronde {

/// 64 bits: BLAKE2b of the three as text.
std::uint64_t key_of(std::string_view seed, std::uint64_t step, std::string_view name);

/// Uniform from 0 to 1, excluded, in steps of 2^-24: what NumPy's Generator(Philox(key)).random()
/// gives for float32 (Salmon et al. 2011, Philox4x64 with ten rounds).
void draw_uniform(std::uint64_t key, std::span<float> out);

}  // namespace ronde
