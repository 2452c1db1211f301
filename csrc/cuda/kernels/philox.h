// Random numbers that depend on nothing but a key and a position: Philox4x32-10 (Salmon, Moraes,
// Dror, Shaw 2011), those of kernels/random.inc.
//
// 128 elements in 8 rows of 16 share a position, which is that of the first of them in the whole
// vector, divided by 128. Each of the 16 lanes has a counter (lane, position), which gives four
// words, and so a number of 16 bits for each row.
#pragma once

#include "device.h"

namespace ronde::cuda {

struct Philox {
  u32 words[4]{};

  Philox() = default;

  explicit DEVICE Philox(u64 key, u64 position, u32 lane)
      : words{lane, static_cast<u32>(position), static_cast<u32>(position >> 32), 0} {
    u32 left = static_cast<u32>(key), right = static_cast<u32>(key >> 32);
    ROLLED for (int round = 0; round < 10; ++round) {
      const u64 a = u64{words[0]} * 0xd2511f53, b = u64{words[2]} * 0xcd9e8d57;
      words[0] = static_cast<u32>(b >> 32) ^ words[1] ^ left;
      words[1] = static_cast<u32>(b);
      words[2] = static_cast<u32>(a >> 32) ^ words[3] ^ right;
      words[3] = static_cast<u32>(a);
      left += 0x9e3779b9;
      right += 0xbb67ae85;
    }
  }

  /// For row 0 to 7, 65536 equally likely numbers between -0.5 and 0.5, the same on both sides of
  /// 0.
  DEVICE float centred(int row) const {
    const u32 word = words[row / 2];
    const u32 mantissa = (row % 2 ? word >> 9 : word << 7) & 0x007fff80;
    return __uint_as_float(mantissa | 0x3f800000) - (1.5f - 0x1p-17f);
  }
};

}  // namespace ronde::cuda
