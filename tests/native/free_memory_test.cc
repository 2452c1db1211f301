// What is free below limits of both versions of control groups, at every level.
#include "core/free_memory.h"

#include <cstdlib>
#include <filesystem>
#include <limits>
#include <string>

#include "check.h"

namespace {

using ronde::free_memory;

constexpr std::size_t kMiB = 1 << 20;  // (a sixteenth of each limit is left, at most 1 GiB)

/// A folder of /proc and /sys for a test.
class Root {
 public:
  Root() {
    char name[] = "/tmp/free_memory_XXXXXX";
    CHECK(mkdtemp(name));
    path_ = name;
  }
  ~Root() { std::filesystem::remove_all(path_); }

  void write(const std::string& file, const std::string& text) const {
    const std::filesystem::path path = path_ + file;
    std::filesystem::create_directories(path.parent_path());
    std::FILE* stream = std::fopen(path.c_str(), "w");
    CHECK(stream && std::fputs(text.c_str(), stream) >= 0);
    std::fclose(stream);
  }

  std::size_t free() const { return free_memory(path_); }

 private:
  std::string path_;
};

std::string mib(std::size_t number) { return std::to_string(number * kMiB) + "\n"; }

void without_limits_it_is_what_the_machine_has() {
  const Root root;
  CHECK(root.free() == std::numeric_limits<std::size_t>::max());  // nothing says anything
  root.write("/proc/meminfo", "MemTotal: 16384 kB\nMemFree: 1 kB\nMemAvailable:    3072 kB\n");
  root.write("/proc/self/cgroup", "0::/job\n");
  root.write("/sys/fs/cgroup/job/memory.max", "max\n");
  CHECK(root.free() == 2 * kMiB);
}

void the_second_version_counts_at_every_level_and_files_are_free() {
  const Root root;
  root.write("/proc/self/cgroup", "0::/pod/job/step\n");
  root.write("/sys/fs/cgroup/pod/job/step/memory.max", mib(960));
  root.write("/sys/fs/cgroup/pod/job/step/memory.current", mib(100));
  root.write("/sys/fs/cgroup/pod/job/memory.max", "max\n");
  CHECK(root.free() == 800 * kMiB);
  root.write("/sys/fs/cgroup/pod/memory.max", mib(640));
  root.write("/sys/fs/cgroup/pod/memory.current", mib(590));
  root.write("/sys/fs/cgroup/pod/memory.stat",
             "anon 5\ninactive_file " + mib(200) + "active_file " + mib(100) + "shmem 3\n");
  CHECK(root.free() == 310 * kMiB);
  root.write("/sys/fs/cgroup/pod/job/step/memory.max", "max\n");
  root.write("/sys/fs/cgroup/pod/memory.max", mib(64 << 10));
  root.write("/sys/fs/cgroup/pod/memory.current", mib(62 << 10));
  CHECK(root.free() == (1 << 10) * kMiB + 300 * kMiB);
  root.write("/sys/fs/cgroup/pod/memory.max", mib(640));
  root.write("/sys/fs/cgroup/pod/memory.current", mib(1000));  // above, for a moment
  CHECK(root.free() == 0);
}

void the_first_version_too_beside_others_and_in_a_container() {
  const Root root;
  root.write("/proc/self/cgroup", "9:name=systemd:/x\n4:cpu,memory:/docker/1234\n0::/\n");
  // The path is the host's; here the uppermost folder is the container's.
  root.write("/sys/fs/cgroup/memory/memory.limit_in_bytes", mib(512));
  root.write("/sys/fs/cgroup/memory/memory.usage_in_bytes", mib(450));
  root.write("/sys/fs/cgroup/memory/memory.stat",
             "inactive_file 1\ntotal_inactive_file " + mib(30) + "total_active_file " + mib(20));
  CHECK(root.free() == 80 * kMiB);
  root.write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  CHECK(root.free() > (std::size_t{1} << 60));
}

}  // namespace

int main() {
  without_limits_it_is_what_the_machine_has();
  the_second_version_counts_at_every_level_and_files_are_free();
  the_first_version_too_beside_others_and_in_a_container();
  std::puts("free memory: ok");
}
