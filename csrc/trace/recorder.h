// What a lane does: its calls, one after another in a ring of records, and its counts. One thread
// at a time writes, that which moves the lane.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "trace/clock.h"
#include "trace/record.h"

namespace ronde {

class Timeline;

/// A call in the flight record, from its beginning to its end; no call, if there is no room.
class Entry {
 public:
  explicit Entry(Record* record = nullptr) : record_(record) {}
  explicit operator bool() const { return record_ != nullptr; }

  /// An asynchronous call that was submitted begins.
  void begin();
  /// It has come to this agreement of its lane.
  void agrees(std::uint64_t sequence) {
    if (record_) record_->sequence = sequence;
  }
  /// How much data it has, if that was not known when it began.
  void has(std::size_t bytes) {
    if (record_ && record_->bytes == 0) record_->bytes = bytes;
  }
  void moves(std::string_view route);
  /// It waits long: for this rank, if that is known.
  void waits(int peer);
  bool lacks_site() const { return record_ && !record_->has_site; }
  void stands_at(std::string_view site);
  /// Nothing is written any more.
  void end(CallState state);

 private:
  Record* record_;
};

class Recorder {
 public:
  /// `memory` of kLaneBytes outlives it, and may be that of a lane that has ended. `track`: its own
  /// in the timeline.
  Recorder(std::byte* memory, int set, int lane, int track, Timeline& timeline);
  ~Recorder();
  Recorder(const Recorder&) = delete;
  Recorder& operator=(const Recorder&) = delete;

  Entry begin(std::string_view kind, std::string_view name, std::size_t bytes) {
    return enter(CallState::begun, {kind, name, bytes, coarse_time()});
  }
  struct Submitted {
    std::string_view kind, name;
    std::size_t bytes;
    std::int64_t at;  // nanoseconds of CLOCK_MONOTONIC
  };
  Entry submit(const Submitted& call) { return enter(CallState::submitted, call); }

  void count(Counter counter, std::uint64_t more = 1) { header_.counts.add(counter, more); }

  int track() const { return track_; }
  Timeline& timeline() const { return timeline_; }

 private:
  Entry enter(CallState state, const Submitted& call);
  Record* next();

  LaneHeader& header_;
  const int track_;
  const int process_;
  Timeline& timeline_;
  std::uint64_t calls_ = 0;
  std::size_t position_ = 0;
};

}  // namespace ronde
