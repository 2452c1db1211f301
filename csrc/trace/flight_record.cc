#include "trace/flight_record.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <new>
#include <string>

#include "core/free_memory.h"

namespace ronde {
namespace {

/// Gives a part of the file its pages, which would else be missing when they are written.
bool reserve(int file, std::size_t offset, std::size_t bytes) {
  if (file < 0 || free_memory() < bytes) return false;
  int error;
  do {
    error = posix_fallocate(file, static_cast<off_t>(offset), static_cast<off_t>(bytes));
  } while (error == EINTR);
  return error == 0;
}

}  // namespace

FlightRecord::FlightRecord() {
  file_ = memfd_create(kFlightRecord, MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (file_ >= 0 && ftruncate(file_, kFlightBytes) == 0 && reserve(file_, 0, kHeaderBytes) &&
      fcntl(file_, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0) {
    void* data = mmap(nullptr, kFlightBytes, PROT_READ | PROT_WRITE, MAP_SHARED, file_, 0);
    if (data != MAP_FAILED) data_ = static_cast<std::byte*>(data);
  }
  if (!data_) {  // nobody can read it, and this rank works all the same
    if (file_ >= 0) close(file_);
    file_ = -1;
    data_ = unshared(kHeaderBytes);
  }
  header().process = getpid();
  header().layout = kFlightLayout;
}

FlightRecord::~FlightRecord() {
  for (const auto& [data, bytes] : unshared_) munmap(data, bytes);
  if (file_ < 0) return;
  munmap(data_, kFlightBytes);
  close(file_);
}

void FlightRecord::describe(int rank, int size, int local_size, std::string_view job,
                            std::string_view host) {
  auto& header = this->header();
  header.rank = rank;
  header.local_size = local_size;
  put(header.job, job);
  put(header.host, host);
  header.size = size;
}

void FlightRecord::enter(std::string_view phase) { put(header().phase, phase); }

std::unique_ptr<Recorder> FlightRecord::open(int set, int lane) {
  const std::lock_guard lock(mutex_);
  // That of a lane that has ended keeps its counts.
  const auto ended = std::find_if(lanes_.begin(), lanes_.end(), [&](std::byte* data) {
    const auto& header = *reinterpret_cast<LaneHeader*>(data);
    return !header.open && header.lane == lane;
  });
  auto* const memory = ended != lanes_.end() ? *ended : lanes_.emplace_back(new_memory(lane));
  auto name = lane == 0 ? "blocking calls" : "asynchronous calls " + std::to_string(lane);
  if (set != 0) name += ", process set " + std::to_string(set);
  const int track = tracks_++;
  timeline_.add_track(track, name);
  return std::make_unique<Recorder>(memory, set, lane, track, timeline_);
}

std::byte* FlightRecord::new_memory(int lane) {
  const auto number = header().lanes.load();
  const std::size_t offset = kHeaderBytes + number * kLaneBytes;
  const std::size_t records = records_of(lane);
  if (number < kMostLanes &&
      reserve(file_, offset, sizeof(LaneHeader) + records * sizeof(Record))) {
    header().lanes = number + 1;
    return data_ + offset;
  }
  return unshared(kLaneBytes);
}

std::byte* FlightRecord::unshared(std::size_t bytes) {
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) throw std::bad_alloc();
  unshared_[static_cast<std::byte*>(data)] = bytes;
  return static_cast<std::byte*>(data);
}

std::uint64_t FlightRecord::total(Counter counter) const {
  const std::lock_guard lock(mutex_);
  std::uint64_t sum = 0;
  for (auto* lane : lanes_) sum += reinterpret_cast<LaneHeader*>(lane)->counts.get(counter);
  return sum;
}

std::string FlightRecord::path() const {
  if (file_ < 0) return {};
  return "/proc/" + std::to_string(getpid()) + "/fd/" + std::to_string(file_);
}

}  // namespace ronde
