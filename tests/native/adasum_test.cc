// Adasum of ranks that are threads, for the sanitizers: over messages with random delays, in shared
// memory, and over machines. Its numbers are checked in tests/collective.
#include "collective/adasum.h"

#include <random>
#include <thread>
#include <vector>

#include "check.h"
#include "collective/communicator.h"
#include "collectives.h"
#include "transport/inproc.h"

namespace {

using namespace ronde;

Buffer buffer_of(std::vector<float>& values) {
  return {reinterpret_cast<std::byte*>(values.data()), values.size() * sizeof(float), {}};
}

/// Equal arrays, which are averaged, beside orthogonal ones, which are added.
void merge(Communicator& set, std::size_t count) {
  const auto size = static_cast<std::size_t>(set.size());
  std::vector<float> equal(count, 3.0f), orthogonal(count * size), nothing;
  for (std::size_t i = 0; i < count; ++i) orthogonal[i * size + set.rank()] = 6.0f;
  std::vector<Piece> pieces;
  for (auto* each : {&equal, &nothing, &orthogonal})
    pieces.push_back({buffer_of(*each), buffer_of(*each)});
  allreduce(set, call("allreduce"), pieces, {.dtype = DType::float32, .adaptive = true});
  for (const float value : equal) CHECK(value == 3.0f);
  // Ranks of a machine average before.
  const float added = 6.0f / static_cast<float>(set.lane().across() ? set.local_size() : 1);
  for (const float value : orthogonal) CHECK(value == added);
}

void under_delays(unsigned seed, int size, bool shared, const std::vector<int>& machines) {
  InprocWorld world(size, {.seed = seed, .delay = 0.3});
  Settings settings;
  settings.spin = false;
  settings.segment_bytes = 512;
  settings.stall_warning = 60;
  settings.stall_timeout = 120;
  std::vector<int> members(size);
  for (int i = 0; i < size; ++i) members[i] = i;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      auto control = std::make_shared<Control>(world.transport(rank, 0), Hooks{});
      Communicator set(control, world.transport(rank, 1), 0, members, settings);
      if (shared) CHECK(set.share_memory(machines));
      std::mt19937 common(seed);  // the same draws on all ranks
      for (int i = 0; i < 12; ++i) merge(set, common() % (i % 4 ? 200 : 40'000));
      barrier(set, call("barrier"));
    });
  }
  for (auto& thread : threads) thread.join();
}

}  // namespace

int main() {
  for (unsigned seed = 0; seed < 3; ++seed) {
    under_delays(seed, 5, false, {});
    under_delays(seed, 4, true, {});
    under_delays(seed, 6, true, {0, 1, 0, 1, 0, 1});
  }
}
