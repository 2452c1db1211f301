#include "core/bytes.h"

#include <pthread.h>
#include <sys/mman.h>

#include <algorithm>
#include <deque>
#include <iterator>
#include <mutex>
#include <new>

namespace ronde {
namespace {

constexpr std::size_t kHugePage = 2 << 20;
constexpr std::size_t kSpare = 128 << 20;

/// Blocks of private memory in whole huge pages.
class Blocks {
 public:
  static Blocks& instance() {
    static auto* all = new Blocks;  // never destroyed: arrays may outlive everything
    return *all;
  }

  std::byte* take(std::size_t bytes) {
    {
      std::lock_guard lock(mutex_);
      const auto same = [&](const Block& block) { return block.bytes == bytes; };
      if (const auto kept = std::find_if(kept_.rbegin(), kept_.rend(), same);
          kept != kept_.rend()) {
        auto* data = kept->data;
        kept_.erase(std::next(kept).base());
        kept_bytes_ -= bytes;
        used_bytes_ += bytes;
        return data;
      }
    }
    void* block = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (block == MAP_FAILED) throw std::bad_alloc();
    madvise(block, bytes, MADV_HUGEPAGE);
    std::lock_guard lock(mutex_);
    used_bytes_ += bytes;
    return static_cast<std::byte*>(block);
  }

  void give_back(std::byte* block, std::size_t bytes) {
    std::lock_guard lock(mutex_);
    used_bytes_ -= bytes;
    kept_.push_back({block, bytes});
    kept_bytes_ += bytes;
    trim(used_bytes_ + kSpare);
  }

  std::size_t release_kept() {
    std::lock_guard lock(mutex_);
    const std::size_t bytes = kept_bytes_;
    trim(0);
    return bytes;
  }

 private:
  struct Block {
    std::byte* data;
    std::size_t bytes;
  };

  /// Those go first that nobody has asked for again for the longest time.
  void trim(std::size_t limit) {
    for (; kept_bytes_ > limit; kept_.pop_front()) {
      munmap(kept_.front().data, kept_.front().bytes);
      kept_bytes_ -= kept_.front().bytes;
    }
  }

  /// A fork waits until no other thread is at work here: the child would inherit the lock, and what
  /// was half done.
  Blocks() { pthread_atfork(lock, unlock, unlock); }
  static void lock() { instance().mutex_.lock(); }
  static void unlock() { instance().mutex_.unlock(); }

  std::mutex mutex_;
  std::deque<Block> kept_;  // in the order in which they were given back
  std::size_t kept_bytes_ = 0, used_bytes_ = 0;
};

}  // namespace

std::shared_ptr<std::byte[]> Bytes::allocate(std::size_t size) {
  if (size < kLarge) return std::shared_ptr<std::byte[]>(new std::byte[size]);
  const std::size_t rounded = (size + kHugePage - 1) / kHugePage * kHugePage;
  return {Blocks::instance().take(rounded),
          [rounded](std::byte* block) { Blocks::instance().give_back(block, rounded); }};
}

std::size_t Bytes::release_kept() { return Blocks::instance().release_kept(); }

}  // namespace ronde
