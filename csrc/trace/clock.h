// Times of traces: nanoseconds of the clock that all processes of a machine share.
#pragma once

#include <time.h>

#include <cstdint>

namespace ronde {

inline std::int64_t nanoseconds(clockid_t clock) {
  timespec time;
  clock_gettime(clock, &time);
  return time.tv_sec * 1'000'000'000LL + time.tv_nsec;
}

/// Exact, in about 20 ns.
inline std::int64_t exact_time() { return nanoseconds(CLOCK_MONOTONIC); }

/// Of the last tick of the system, some milliseconds ago at most, in about 3 ns.
inline std::int64_t coarse_time() { return nanoseconds(CLOCK_MONOTONIC_COARSE); }

}  // namespace ronde
