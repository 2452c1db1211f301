// Memory for the frames of tasks: a short collective would spend more time in malloc than in its
// frame. Each thread keeps a few free ones of every size, not more, as a frame may be freed by
// another thread than makes it. Under AddressSanitizer none is kept, so that the use of a dead
// frame is seen.
#pragma once

#include <cstddef>
#include <new>
#include <utility>

namespace ronde {

class FramePool {
 public:
  static void* take(std::size_t bytes) {
    const std::size_t size = steps(bytes);
    if (size >= kSizes || !free_.first[size]) return ::operator new(size * kStep);
    --free_.count[size];
    return std::exchange(free_.first[size], free_.first[size]->next);
  }

  static void give(void* frame, std::size_t bytes) {
    const std::size_t size = steps(bytes);
    if (size >= kSizes || free_.count[size] >= kKept) return ::operator delete(frame);
    if (!free_.cleans) clean_at_exit();
    ++free_.count[size];
    free_.first[size] = ::new (frame) Link{free_.first[size]};
  }

 private:
  static constexpr std::size_t kStep = 128, kSizes = 17;
#if defined(__SANITIZE_ADDRESS__)
  static constexpr int kKept = 0;
#else
  static constexpr int kKept = 32;
#endif

  struct Link {
    Link* next;
  };
  // Neither constructor nor destructor: each access to a thread_local that has one goes through a
  // function.
  struct Free {
    Link* first[kSizes];
    int count[kSizes];
    bool cleans;  // when the thread ends
  };

  static constexpr std::size_t steps(std::size_t bytes) { return (bytes + kStep - 1) / kStep; }

  static void clean_at_exit() {
    struct Cleaner {
      ~Cleaner() {
        for (std::size_t size = 0; size < kSizes; ++size) {
          free_.count[size] = kKept;  // frames that are freed later are not kept
          while (free_.first[size])
            ::operator delete(std::exchange(free_.first[size], free_.first[size]->next));
        }
      }
    };
    thread_local Cleaner cleaner;
    static_cast<void>(&cleaner);
    free_.cleans = true;
  }

  static inline constinit thread_local Free free_ = {};
};

}  // namespace ronde
