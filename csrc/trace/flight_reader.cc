#include "trace/flight_reader.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/error.h"
#include "trace/clock.h"

namespace ronde {
namespace {

constexpr int kTries = 100;  // for a record that is written again and again meanwhile

double seconds(std::int64_t nanoseconds) { return static_cast<double>(nanoseconds) * 1e-9; }

}  // namespace

FlightReader::FlightReader(const std::string& path) {
  const auto refuse = [&](const std::string& why) {
    throw UnavailableError("the flight record " + path + " cannot be read: " + why);
  };
  // In another container, or by now, the path may lead elsewhere.
  char target[64];
  const auto length = readlink(path.c_str(), target, sizeof target);
  if (length < 0) refuse(std::strerror(errno));
  if (std::string(target, length) != "/memfd:" + std::string(kFlightRecord) + " (deleted)")
    refuse("it is none");
  const int file = ::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOCTTY);
  if (file < 0) refuse(std::strerror(errno));
  struct stat status = {};
  // One that its owner could cut would end this process as it reads.
  const bool fits = fstat(file, &status) == 0 &&
                    status.st_size == static_cast<off_t>(kFlightBytes) &&
                    (fcntl(file, F_GET_SEALS) & F_SEAL_SHRINK);
  void* data =
      fits ? mmap(nullptr, kFlightBytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0) : MAP_FAILED;
  close(file);
  if (data == MAP_FAILED) refuse("it is of another version of Ronde, or none at all");
  data_ = static_cast<std::byte*>(data);
  if (header().layout == kFlightLayout) return;
  munmap(data, kFlightBytes);
  refuse("it is of another version of Ronde");
}

FlightReader::~FlightReader() { munmap(data_, kFlightBytes); }

std::vector<RecordedLane> FlightReader::lanes() const {
  std::vector<RecordedLane> lanes;
  const std::size_t count = std::min<std::size_t>(header().lanes, kMostLanes);
  for (std::size_t i = 0; i < count; ++i) {
    auto& header = *reinterpret_cast<LaneHeader*>(data_ + kHeaderBytes + i * kLaneBytes);
    RecordedLane lane{header.set, header.lane, header.open, {}, {}};
    const auto records = std::min<std::size_t>(header.records, kAsynchronousRecords);
    for (const auto* record = header.begin(); record != header.begin() + records; ++record) {
      Recorded call;
      if (copy(*record, call)) lane.calls.push_back(std::move(call));
    }
    std::sort(lane.calls.begin(), lane.calls.end(),
              [](const auto& a, const auto& b) { return a.number < b.number; });
    for (std::size_t c = 0; c < kCounters; ++c)
      lane.counts.push_back(header.counts.get(static_cast<Counter>(c)));
    lanes.push_back(std::move(lane));
  }
  return lanes;
}

/// Whether there is a call, and the copy of it is whole.
bool FlightReader::copy(const Record& record, Recorded& copy) {
  for (int i = 0; i < kTries; ++i) {
    const auto version = record.version.load(std::memory_order_acquire);
    copy = {record.state,
            record.number,
            record.sequence,
            record.bytes,
            seconds(record.submitted),
            seconds(record.began),
            seconds(record.ended),
            record.peer,
            text_of(record.what),
            record.has_route ? text_of(record.route) : "",
            record.has_site ? text_of(record.site) : ""};
    std::atomic_thread_fence(std::memory_order_acquire);
    const bool whole =
        version % 2 == 0 && version == record.version.load(std::memory_order_relaxed);
    // A process that was killed may have left one half written.
    if (whole) return copy.state != CallState::none;
  }
  return false;
}

bool FlightReader::claim(double seconds) {
  const auto now = exact_time();
  auto before = header().claimed.load();
  if (before != 0 && static_cast<double>(now - before) < seconds * 1e9) return false;
  return header().claimed.compare_exchange_strong(before, now);
}

}  // namespace ronde
