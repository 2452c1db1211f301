#include "node/segment.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>

#include "core/error.h"
#include "core/free_memory.h"

namespace ronde {
namespace {

// The segments that this process has made, by address.
std::mutex own_mutex;
std::map<std::string, std::weak_ptr<Segment>> own_segments;

std::string new_label() {
  std::uint64_t random[2] = {};
  if (getrandom(random, sizeof random, 0) != sizeof random)
    throw UnavailableError("the system has no random numbers");
  char text[48];
  std::snprintf(text, sizeof text, "ronde-%016llx%016llx",
                static_cast<unsigned long long>(random[0]),
                static_cast<unsigned long long>(random[1]));
  return text;
}

/// Gives a file its pages. Throws UnavailableError.
///
/// Beyond the limit of a container or a machine the system does not refuse but kills. So what is
/// free is looked at before each step: other ranks may reserve at the same time.
void reserve(int file, std::size_t bytes) {
  constexpr std::size_t kRanks = 64;  // that may do a step at once
  constexpr std::size_t kSmallestStep = 1 << 20, kLargestStep = 64 << 20;
  for (std::size_t done = 0; done < bytes;) {
    const std::size_t missing = bytes - done, room = free_memory();
    if (room < missing)
      throw UnavailableError("the memory limit leaves " + std::to_string(room) + " bytes");
    const auto step = std::min(missing, std::clamp(room / kRanks, kSmallestStep, kLargestStep));
    int error;
    do {
      error = posix_fallocate(file, static_cast<off_t>(done), static_cast<off_t>(step));
    } while (error == EINTR);  // by a timer of a profiler, say
    if (error) throw UnavailableError(std::strerror(error));
    done += step;
  }
}

/// Null if it cannot be mapped. The pages are there already: all of them are mapped now rather than
/// one by one when touched.
std::byte* map(int file, std::size_t bytes) {
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, file, 0);
  return data == MAP_FAILED ? nullptr : static_cast<std::byte*>(data);
}

}  // namespace

std::shared_ptr<Segment> Segment::create(std::size_t bytes) {
  const auto label = new_label();
  const int file = memfd_create(label.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING);
  std::byte* data = nullptr;
  try {
    if (file < 0) throw UnavailableError(std::strerror(errno));
    reserve(file, bytes);
    fcntl(file, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW);
    data = map(file, bytes);
    if (!data) throw UnavailableError("it cannot be mapped");
  } catch (const UnavailableError& error) {
    if (file >= 0) close(file);
    throw UnavailableError("no shared memory of " + std::to_string(bytes) +
                           " bytes: " + error.what());
  }
  const std::shared_ptr<Segment> segment(new Segment(file, label, data, bytes));
  std::lock_guard lock(own_mutex);
  std::erase_if(own_segments, [](const auto& entry) { return entry.second.expired(); });
  own_segments[segment->address()] = segment;
  return segment;
}

std::shared_ptr<Segment> Segment::open(const std::string& address, std::size_t bytes) {
  {
    std::lock_guard lock(own_mutex);
    if (const auto own = own_segments.find(address); own != own_segments.end()) {
      if (auto segment = own->second.lock(); segment && segment->size() == bytes) return segment;
    }
  }
  const auto space = address.find(' ');
  if (space == std::string::npos) return nullptr;
  const auto path = address.substr(0, space), label = address.substr(space + 1);
  char target[128];
  const auto length = readlink(path.c_str(), target, sizeof target);
  if (length < 0 || std::string(target, length) != "/memfd:" + label + " (deleted)") return nullptr;
  const int file = ::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOCTTY);
  if (file < 0) return nullptr;
  struct stat status = {};
  const bool fits = fstat(file, &status) == 0 && status.st_size == static_cast<off_t>(bytes);
  std::byte* data = fits ? map(file, bytes) : nullptr;
  close(file);
  return std::shared_ptr<Segment>(data ? new Segment(-1, label, data, bytes) : nullptr);
}

Segment::~Segment() {
  munmap(data_, size_);
  if (file_ >= 0) close(file_);
}

void Segment::discard() {
  if (getpid() != process_) return;
  madvise(data_, size_, MADV_REMOVE);
  discarded_ = true;
}

std::string Segment::address() const {
  return "/proc/" + std::to_string(getpid()) + "/fd/" + std::to_string(file_) + " " + label_;
}

}  // namespace ronde
