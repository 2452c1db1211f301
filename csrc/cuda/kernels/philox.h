// Random numbers that depend on nothing but a key and a position: Philox4x32-10, as
// kernels/random.inc has it. 128 elements in 8 rows of 16 lanes share a position.
#pragma once

#include "device.h"

namespace ronde::cuda {

struct Philox {
  u32 words[4];

  Philox() = default;

  /// Of lane 0 to 15.
  DEVICE Philox(u64 key, u64 position, u32 lane)
      : words{lane, static_cast<u32>(position), static_cast<u32>(position >> 32), 0} {
    u32 left = static_cast<u32>(key), right = static_cast<u32>(key >> 32);
    UNROLL for (int round = 0; round < 10; ++round) {
      constexpr u32 kFirst = 0xd2511f53, kSecond = 0xcd9e8d57;
      const u32 a = words[0], b = words[2];
      words[0] = __umulhi(b, kSecond) ^ words[1] ^ left;
      words[1] = b * kSecond;
      words[2] = __umulhi(a, kFirst) ^ words[3] ^ right;
      words[3] = a * kFirst;
      left += 0x9e3779b9;
      right += 0xbb67ae85;
    }
  }

  /// For row 0 to 7, 65536 equally likely numbers between -0.5 and 0.5.
  DEVICE float centred(int row) const {
    const u32 word = words[row / 2];
    const u32 mantissa = (row % 2 ? word >> 9 : word << 7) & 0x007fff80;
    return __uint_as_float(mantissa | 0x3f800000) - (1.5f - 0x1p-17f);
  }
};

}  // namespace ronde::cuda
