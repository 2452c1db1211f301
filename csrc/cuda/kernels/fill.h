// What the kernel of fill.cu is given.
#pragma once

#include "types.h"

namespace ronde::cuda {

/// fill
struct Fill {
  u8* to;
  u64 bytes;
  u64 pattern;  // the byte at an address is that of its place among 8
};

}  // namespace ronde::cuda
