// Large blocks while other threads and forked processes use them too.
#include "core/bytes.h"

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <thread>

#include "check.h"

namespace {

using ronde::Bytes;

constexpr unsigned kHang = 60;  // seconds after which a child is ended that waits forever

/// Takes a block and gives it back.
bool use_a_block() {
  const Bytes block(Bytes::kLarge);
  std::memset(block.data(), 7, block.size());
  return block.data()[block.size() - 1] == std::byte{7};
}

void a_block_that_is_free_is_taken_again() {
  const std::byte* first = Bytes(Bytes::kLarge).data();
  const Bytes second(Bytes::kLarge), third(Bytes::kLarge);
  CHECK(second.data() == first);
  CHECK(third.data() != first);
}

void a_child_can_use_blocks_while_threads_of_its_parent_did() {
  Bytes inherited(Bytes::kLarge);
  std::atomic<bool> ended = false;
  std::thread busy([&] {
    while (!ended) Bytes{Bytes::kLarge};
  });
  for (int i = 0; i < 200; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      alarm(kHang);
      inherited = Bytes();  // given back
      _exit(use_a_block() ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  ended = true;
  busy.join();
}

}  // namespace

int main() {
  a_block_that_is_free_is_taken_again();
  a_child_can_use_blocks_while_threads_of_its_parent_did();
}
