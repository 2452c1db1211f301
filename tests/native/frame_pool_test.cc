// Memory for frames, more of it than is kept, and freed in other threads.
#include "collective/frame_pool.h"

#include <cstddef>
#include <cstring>
#include <thread>
#include <vector>

#include "check.h"

namespace {

using ronde::FramePool;

constexpr std::size_t kBytes = 200;

void a_frame_is_used_once_at_a_time() {
  std::vector<std::byte*> here, there;
  for (const std::size_t bytes : {1, 128, 129, 2048, 2049, 9999}) {
    const auto take = [bytes](auto& frames) {
      for (int i = 0; i < 100; ++i) {  // more than are kept
        frames.push_back(static_cast<std::byte*>(FramePool::take(bytes)));
        std::memset(frames.back(), i, bytes);
      }
    };
    const auto give = [bytes](auto& frames) {
      for (int i = 0; i < 100; ++i) {
        CHECK(frames[i][0] == std::byte(i) && frames[i][bytes - 1] == std::byte(i));
        FramePool::give(frames[i], bytes);
      }
      frames.clear();
    };
    take(here);
    std::thread([&] { give(here), take(there); }).join();
    take(here);
    give(there), give(here);
  }
}

struct Owner {
  void* frame;
  ~Owner() { FramePool::give(frame, kBytes); }
};

void a_frame_may_outlive_the_pool_of_its_thread() {
  std::thread([] {
    thread_local Owner last;  // destroyed after the pool, which is used later
    FramePool::give(FramePool::take(kBytes), kBytes);
    last.frame = FramePool::take(kBytes);
  }).join();
}

}  // namespace

int main() {
  a_frame_is_used_once_at_a_time();
  a_frame_may_outlive_the_pool_of_its_thread();
}
