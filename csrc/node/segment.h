// A piece of memory that the ranks of one machine share.
//
// It is a memfd: it has no name, so nothing can be left behind, and a container's small /dev/shm
// does not matter. Others open it through /proc/<pid>/fd/<number>, which works between processes of
// one user on one machine. Its pages are reserved at once: a sparse file would end in SIGBUS when
// memory runs out.
#pragma once

#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>

namespace ronde {

class Segment {
 public:
  /// New memory, all zero. Throws UnavailableError if the system has none to give.
  static std::shared_ptr<Segment> create(std::size_t bytes);

  /// The memory that another rank has at `address`, or null if it cannot be opened: that rank is on
  /// another machine, in another container, or of another user. Ranks that are threads of one
  /// process get one object, at one address.
  static std::shared_ptr<Segment> open(const std::string& address, std::size_t bytes);

  ~Segment();
  Segment(const Segment&) = delete;
  Segment& operator=(const Segment&) = delete;

  std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }

  /// Gives the memory back to the system, though others may still have it mapped. Nobody must use
  /// it any more. In a child of the process that made it this does nothing.
  void discard();
  bool discarded() const { return discarded_; }

  /// What others pass to `open`, as long as this object lives.
  std::string address() const;

 private:
  Segment(int file, std::string label, std::byte* data, std::size_t size)
      : file_(file), label_(std::move(label)), data_(data), size_(size) {}

  const int file_;  // -1 where it was opened: only its maker is asked for the address
  const int process_ = getpid();
  std::atomic<bool> discarded_ = false;
  const std::string label_;
  std::byte* const data_;
  const std::size_t size_;
};

}  // namespace ronde
