// The flight record of this rank: what it does and has done, readable by other processes of the
// machine while it lives, and by those that have opened it before it ended.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "trace/counters.h"
#include "trace/recorder.h"
#include "trace/timeline.h"

namespace ronde {

class FlightRecord {
 public:
  FlightRecord();
  ~FlightRecord();
  FlightRecord(const FlightRecord&) = delete;
  FlightRecord& operator=(const FlightRecord&) = delete;

  Timeline& timeline() { return timeline_; }

  /// Who this rank is, for readers. `job` is the same on all ranks of the job, and on no others.
  void describe(int rank, int size, int local_size, std::string_view job, std::string_view host);
  /// The job is over, and another of this process begins: readers are to look for its record.
  void retire() { header().size = 0; }
  /// Where the rank is in its life, in words.
  void enter(std::string_view phase);

  /// For a lane of a process set: 0 is that of blocking calls. It must end before the record does.
  std::unique_ptr<Recorder> open(int set, int lane);

  /// Of all lanes since the beginning.
  std::uint64_t total(Counter counter) const;

  /// A path by which processes of this machine can open it; empty if they cannot.
  std::string path() const;

 private:
  std::byte* new_memory(int lane);
  std::byte* unshared(std::size_t bytes);
  Header& header() const { return *reinterpret_cast<Header*>(data_); }

  Timeline timeline_;
  int file_ = -1;
  std::byte* data_ = nullptr;
  mutable std::mutex mutex_;
  std::vector<std::byte*> lanes_;  // open and ended ones
  int tracks_ = 0;                 // of the timeline, one for each lane that was opened
  std::map<std::byte*, std::size_t> unshared_;  // memory for which there is no room in the file
};

}  // namespace ronde
