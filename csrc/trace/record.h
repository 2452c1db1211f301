// The flight record of a rank as it lies in memory, for readers in other processes.
//
// It is a memfd named kFlightRecord: a Header, and for each lane a LaneHeader and its records.
// Nobody locks it. The version of a record is odd while it is being written, so a reader knows
// whether its copy is whole. Texts that do not fit are cut.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "core/text.h"
#include "trace/counters.h"

namespace ronde {

inline constexpr char kFlightRecord[] = "ronde-flight-record";
inline constexpr std::uint64_t kFlightLayout =
    0x31'74'68'67'69'6c'66;  // "flight1": changes with it

enum class CallState : std::uint8_t { none, submitted, begun, moving, done, failed };

/// A call. Times are nanoseconds of CLOCK_MONOTONIC, 0 for none.
struct alignas(64) Record {
  std::atomic<std::uint32_t> version;
  CallState state;
  bool has_route, has_site;
  std::uint64_t number;    // among the calls of its lane, from 1
  std::uint64_t sequence;  // of the agreement that it has come to in its lane
  std::uint64_t bytes;
  std::int64_t submitted, began, ended;
  std::int32_t peer;  // the rank that it waits for, where that is known, else -1
  char what[68];      // "allreduce/w", or "allreduce#" without a name
  // A call that is over soon does not touch what follows.
  char route[32];  // how its data moves
  char site[96];   // "train.py:42"

  bool under_way() const {
    return state != CallState::none && state != CallState::done && state != CallState::failed;
  }
};
static_assert(sizeof(Record) == 256);

struct alignas(64) LaneHeader {
  std::int32_t set;
  std::int32_t lane;  // 0: that of blocking calls
  std::atomic<bool> open;
  std::uint32_t records;
  Counts counts;

  Record* begin() { return reinterpret_cast<Record*>(this + 1); }
  Record* end() { return begin() + records; }
};

struct Header {
  std::uint64_t layout;
  std::int32_t process, rank, size;
  std::int32_t local_size;            // ranks of this machine
  std::atomic<std::uint32_t> lanes;   // that have been opened
  std::atomic<std::int64_t> claimed;  // when a rank of the machine has reported for all
  char job[64], host[64];
  char phase[64];  // of the life of the rank, in words
};

inline constexpr std::size_t kBlockingRecords = 32;  // few, as they stay in the cache
inline constexpr std::size_t kAsynchronousRecords = 256;
/// The calls of all asynchronous lanes of a set are those of the first: they get a lane as they
/// run.
inline std::size_t records_of(int lane) {
  return lane == 0 ? kBlockingRecords : lane == 1 ? kAsynchronousRecords : 0;
}

inline constexpr std::size_t kHeaderBytes = 4096;
inline constexpr std::size_t kLaneBytes =
    sizeof(LaneHeader) + kAsynchronousRecords * sizeof(Record);
inline constexpr std::size_t kMostLanes = 64;
inline constexpr std::size_t kFlightBytes = kHeaderBytes + kMostLanes * kLaneBytes;
static_assert(sizeof(Header) <= kHeaderBytes);

/// Writes a text into a field, and returns where the next one goes on. Of one that is too long the
/// end is kept: that of a path or of a name says more than its beginning.
inline char* append(char* to, char* end, std::string_view text) {
  text = last(text, static_cast<std::size_t>(end - to - 1));
  std::memcpy(to, text.data(), text.size());
  to += text.size();
  *to = 0;
  return to;
}

template <std::size_t N>
void put(char (&field)[N], std::string_view text) {
  append(field, field + N, text);
}

}  // namespace ronde
