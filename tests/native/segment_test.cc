// Memory that processes share, and addresses that lead nowhere.
#include "node/segment.h"

#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include "check.h"

namespace {

using ronde::Segment;

constexpr std::size_t kBytes = 3 << 12;

/// Runs `body` in a new process, of which nothing is inherited but the address; returns its exit
/// status.
template <class Body>
int in_another_process(Body body) {
  const pid_t child = fork();
  if (child == 0) _exit(body());
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

void another_process_sees_the_same_memory() {
  const auto segment = Segment::create(kBytes);
  for (std::size_t i = 0; i < kBytes; ++i) CHECK(segment->data()[i] == std::byte{0});
  // The child makes no segment of its own under this address, so that it has to open it.
  const std::string address = segment->address();
  const std::string other =
      "/proc/" + std::to_string(getpid()) + "/./" + address.substr(address.find("fd/"));
  CHECK(in_another_process([&] {
          const auto opened = Segment::open(other, kBytes);
          if (!opened || opened->data() == segment->data()) return 1;
          opened->data()[kBytes - 1] = std::byte{42};
          return 0;
        }) == 0);
  CHECK(segment->data()[kBytes - 1] == std::byte{42});
}

void threads_of_a_process_get_one_object() {
  const auto segment = Segment::create(kBytes);
  CHECK(Segment::open(segment->address(), kBytes) == segment);
}

void what_is_not_there_is_null() {
  std::string address;
  {
    const auto segment = Segment::create(kBytes);
    address = segment->address();
    CHECK(!Segment::open(address, kBytes + 1));  // of another size
  }
  CHECK(!Segment::open(address, kBytes));  // gone
  CHECK(!Segment::open("/proc/1/fd/987654", kBytes));
  CHECK(!Segment::open("", kBytes));
  // Something else may have the number now, in this process or in another of the same number
  // elsewhere.
  const auto segment = Segment::create(kBytes);
  auto mislabelled = segment->address();
  mislabelled.back() = mislabelled.back() == '0' ? '1' : '0';
  CHECK(!Segment::open(mislabelled, kBytes));
}

}  // namespace

int main() {
  another_process_sees_the_same_memory();
  threads_of_a_process_get_one_object();
  what_is_not_there_is_null();
  std::puts("segment: ok");
}
