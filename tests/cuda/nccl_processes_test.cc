// Ranks that are processes. With the fake library (fake_nccl.cc) they use whatever devices there
// are; with NVIDIA's each needs one of its own.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>

#include "nccl_ranks.h"

namespace {

using namespace ronde;
using namespace ronde::cuda;
using namespace ronde::cuda::testing;

using Bytes = std::vector<std::byte>;

/// Connects a pair of processes in one direction.
struct Pipe {
  Pipe() { CHECK(pipe(ends.data()) == 0); }
  std::array<int, 2> ends{};

  template <class T>
  void put(const T& value) const {
    CHECK(write(ends[1], &value, sizeof value) == sizeof value);
  }
  template <class T>
  T get() const {
    T value{};
    CHECK(read(ends[0], &value, sizeof value) == sizeof value);
    return value;
  }
};

/// Runs it as processes that are connected. `ends`: how each has to end, by which signal. None
/// leaves before all have done what they had to.
void in_processes(const std::vector<int>& ends, const std::function<void(Rank&)>& run) {
  const auto size = static_cast<int>(ends.size());
  const std::vector<Pipe> ids(ends.size()), leaves(ends.size());
  const Pipe done;
  std::vector<pid_t> processes;
  for (int r = 0; r < size; ++r) {
    const auto process = fork();
    CHECK(process >= 0);
    if (process > 0) {
      processes.push_back(process);
      continue;
    }
    alarm(120);  // rather than hang
    if (r == 0) {
      const auto id = Nccl::get().unique_id();
      for (const auto& each : ids) each.put(id);
    }
    {
      Rank rank(ids[static_cast<std::size_t>(r)].get<NcclId>(), size, r);
      rank.settle();
      run(rank);
      done.put(r);
      (void)leaves[static_cast<std::size_t>(r)].get<int>();
    }
    std::_Exit(0);
  }
  for (auto left = std::ranges::count(ends, 0); left > 0; --left) (void)done.get<int>();
  for (const auto& each : leaves) each.put(0);
  for (std::size_t r = 0; r < processes.size(); ++r) {
    int status = 0;
    CHECK(waitpid(processes[r], &status, 0) == processes[r]);
    CHECK(ends[r] ? WIFSIGNALED(status) && WTERMSIG(status) == ends[r]
                  : WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
}

void check_collectives(Rank& rank) {
  constexpr std::size_t kCount = 600;
  const int size = rank.nccl.size(), r = rank.nccl.rank(), sum = size * (size + 1) / 2;
  const auto bytes = [](std::size_t count, int value) {
    return Bytes(count, static_cast<std::byte>(value));
  };
  const std::size_t all = kCount * static_cast<std::size_t>(size);
  const OnDevice mine(rank.device, rank.stream, bytes(all, r + 1));
  const OnDevice out(rank.device, rank.stream, all);
  const NcclBuffers buffers{mine.data(), out.data(), kCount, DType::uint8};
  const auto require = [&](std::size_t from, std::size_t count, int value) {
    rank.finish();
    const auto found = out.bytes();
    CHECK(std::ranges::equal(std::span(found).subspan(from, count), bytes(count, value)));
  };
  for (int i = 0; i < 3; ++i) {
    rank.nccl.all_reduce(rank.stream, buffers, ReduceOp::sum);
    require(0, kCount, sum);
    rank.nccl.reduce_scatter(rank.stream, buffers, ReduceOp::max);
    require(0, kCount, size);
    rank.nccl.all_gather(rank.stream, buffers);
    for (int other = 0; other < size; ++other)
      require(kCount * static_cast<std::size_t>(other), kCount, other + 1);
    rank.nccl.broadcast(rank.stream, buffers, size - 1);
    rank.settle();
    const NcclBuffers half{mine.data(), r == 0 ? out.data() : nullptr, kCount / 2, DType::uint8};
    rank.nccl.reduce(rank.stream, half, ReduceOp::sum, 0);
    require(0, kCount / 2, r == 0 ? sum : size);
    require(kCount / 2, kCount / 2, size);
    NcclGroup group;
    rank.nccl.send(rank.stream, mine.data(), 50, (r + 1) % size);
    rank.nccl.receive(rank.stream, out.data(), 50, (r + size - 1) % size);
    group.end();
    require(0, 50, (r + size - 1) % size + 1);
  }
}

void check_mismatch(Rank& rank) {
  const auto count = static_cast<std::size_t>(4 + rank.nccl.rank());
  const OnDevice memory(rank.device, rank.stream, 64);
  const auto before = memory.bytes();
  const auto refused = thrown_by([&] {
    rank.nccl.all_reduce(rank.stream, {memory.data(), memory.data(), count, DType::float32},
                         ReduceOp::sum);
  });
  auto error = rank.nccl.error();
  for (; error.empty(); error = rank.nccl.error()) nap();
  CHECK(contains(error, "(4 ncclFloat32") && contains(error, "(5 ncclFloat32"));
  rank.nccl.abort();
  rank.stream.synchronise();
  CHECK(memory.bytes() == before);
}

/// A process is killed, perhaps that which made the id. The others wait until they give up.
void check_killed(Rank& rank, int victim) {
  if (rank.nccl.rank() == victim) {
    for (int i = 0; i < 100; ++i) nap();
    (void)raise(SIGKILL);
  }
  const OnDevice memory(rank.device, rank.stream, 64);
  const auto before = memory.bytes();
  rank.nccl.all_reduce(rank.stream, {memory.data(), memory.data(), 64, DType::uint8},
                       ReduceOp::sum);
  rank.settle();
  Event done(rank.device);
  done.record(rank.stream);
  for (int i = 0; i < 500; ++i) nap();
  CHECK(!done.reached() && rank.nccl.error().empty());
  rank.nccl.abort();
  rank.stream.synchronise();
  CHECK(memory.bytes() == before);
}

/// Whether the library is the fake one, and how many devices there are: found out by a process of
/// its own, as one that has used CUDA must not fork.
std::pair<bool, int> found() {
  const Pipe pipe;
  const auto process = fork();
  if (process == 0) {
    const bool usable = Nccl::missing().empty() && Driver::missing().empty();
    pipe.put(std::pair(usable && is_fake(), usable ? Driver::get().devices() : 0));
    std::_Exit(0);
  }
  const auto result = pipe.get<std::pair<bool, int>>();
  CHECK(waitpid(process, nullptr, 0) == process);
  return result;
}

}  // namespace

int main() {
  alarm(200);  // rather than wait for what a process that has failed does not say
  const auto [fake, devices] = found();
  for (const int size : {2, 4}) {
    if (fake || devices >= size)
      in_processes(std::vector<int>(static_cast<std::size_t>(size)), check_collectives);
  }
  if (!fake) {
    std::printf("nothing else to try: this is not the fake NCCL\n");
    return 0;
  }
  in_processes({0, 0}, check_mismatch);
  in_processes({0, SIGKILL, 0}, [](Rank& rank) { check_killed(rank, 1); });
  in_processes({SIGKILL, 0, 0}, [](Rank& rank) { check_killed(rank, 0); });
}
