// Compressed allreduces over several machines of several ranks, which are threads. Some machines
// have their arrays on GPUs, which a fake NCCL connects, the others on the host: all ranks get the
// bits that they get where all are on the host, and keep the same residuals.
#include <unistd.h>

#include <algorithm>
#include <barrier>
#include <cmath>
#include <cstdio>
#include <functional>
#include <limits>
#include <list>
#include <memory>
#include <mutex>
#include <numeric>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "collective/communicator.h"
#include "collective/compressed.h"
#include "collectives.h"
#include "compress/quantiser.h"
#include "compress/random_k.h"
#include "compress/table.h"
#include "compress/threshold.h"
#include "compress/top_k.h"
#include "compressed_arrays.h"
#include "core/error.h"
#include "nccl_ranks.h"
#include "transport/inproc.h"

namespace {

using namespace ronde;
using namespace ronde::cuda;
using namespace ronde::cuda::testing;

/// Ranks follow one another on the machines: 0 and 1 on the first of two, say.
struct Machines {
  int count = 2, ranks = 2;
  int size() const { return count * ranks; }
  int of(int rank) const { return rank / ranks; }
  int local_rank(int rank) const { return rank % ranks; }
};

/// What each rank has after each step.
struct Outcome {
  std::vector<Floats> results, residuals;
};

/// The same for every run. `whole`: integers, whose sums are exact in any order.
Floats values_of(const Case& c, int rank, int step, bool whole) {
  std::mt19937_64 random(seed() + 1000 * rank + step);
  std::normal_distribution<float> normal;
  Floats values(c.count());
  for (auto& x : values) {
    x = normal(random);
    if (whole) {
      x = std::round(100 * x);
      continue;
    }
    if (c.extreme && random() % 64 == 0) x *= std::exp2f(normal(random) * 40);
    if (c.extreme && random() % 4096 == 0) x = std::numeric_limits<float>::infinity();
  }
  return values;
}

// Ranks -------------------------------------------------------------------------------------------

Settings quick() {
  Settings settings;
  settings.spin = false;
  settings.stall_warning = 30;
  settings.stall_timeout = 60;
  return settings;
}

struct Job {
  Machines machines{};
  Settings settings = quick();
  Faults faults = {.seed = seed(), .delay = 0.1};
  bool gathers = false;  // what is sparse
  std::vector<std::string>* warnings = nullptr;

  void run(const std::function<void(Communicator&)>& program) const {
    const int size = machines.size();
    InprocWorld world(size, faults);
    std::vector<int> members(static_cast<std::size_t>(size)), places;
    std::iota(members.begin(), members.end(), 0);
    for (const int rank : members) places.push_back(machines.of(rank));
    std::mutex mutex;
    const auto warn = [&](const std::string& text) {
      const std::lock_guard lock(mutex);
      if (warnings) warnings->push_back(text);
    };
    std::barrier shared(size);
    in_parallel(size, [&](int rank) {
      Hooks hooks;
      hooks.warn = warn;
      auto control = std::make_shared<Control>(world.transport(rank, 0), hooks);
      Communicator set(control, world.transport(rank, 1), 0, members, settings);
      if (machines.ranks > 1) CHECK(set.share_memory(places));
      set.use_nccl_inside();
      const Link by_slices{.alpha = 1e-12, .overhead = 1e-12, .beta = 1}, to_all{.alpha = 1};
      set.set_link(gathers ? to_all : by_slices);
      program(set);
    });
  }
};

/// A rank that makes compressed calls, as groups do.
class Rank {
 public:
  /// `there`: whether it has its arrays on a GPU of this number; `alike`: all of its machine do.
  Rank(Communicator& set, const Case& c, std::optional<int> there, bool alike)
      : set_(set), case_(c), sums_there_(there && alike), number_(there.value_or(-1)) {
    if (sums_there_)
      arrays_ = std::make_unique<GpuArrays>(c, number_);
    else
      arrays_ = std::make_unique<HostArrays>(c);
  }

  void step(int number, bool whole = false) {
    const Floats values = values_of(case_, set_.rank(), number, whole);
    const auto pieces = arrays_->pieces(case_, values);
    const Compression compression{.compressor = case_.compressor,
                                  .residual = arrays_->residual(),
                                  .key = static_cast<std::uint64_t>(77 + number)};
    const auto begin = [&](Routes& routes, Operation& operation) {
      return call(routes.lane(), operation, pieces, compression);
    };
    set_.run(ronde::call("compressed"), begin, [] { return std::vector<Outline>(); });
  }

  Arrays& arrays() { return *arrays_; }

 private:
  Task<> call(Lane& lane, Operation& operation, std::span<const Piece> pieces,
              Compression compression) {
    co_await lane.agree(operation);
    operation.agreed = true;
    std::optional<ronde::Device> gpu;
    if (number_ >= 0) gpu = ronde::Device{MemoryKind::cuda, number_, nullptr};
    const bool there = co_await sums_on_gpus(lane, operation, *compression.compressor, gpu);
    CHECK(there == sums_there_);
    co_await allreduce_compressed(lane, operation, pieces, case_.reduction, compression);
  }

  Communicator& set_;
  const Case case_;
  const bool sums_there_;
  const int number_;
  std::unique_ptr<Arrays> arrays_;
};

/// `there`: which ranks have their arrays on a GPU. Those of a machine on which not all have are
/// staged, here by arrays that are on the host anyhow.
Outcome run(const Case& c, const Machines& machines, const std::vector<bool>& there, bool whole) {
  Outcome outcome;
  outcome.results.resize(there.size());
  outcome.residuals.resize(there.size());
  Job{.machines = machines, .gathers = c.gathers}.run([&](Communicator& set) {
    const int rank = set.rank(), first = rank - machines.local_rank(rank);
    const auto mine = there.begin() + first;
    const bool alike = std::all_of(mine, mine + machines.ranks, [](bool each) { return each; });
    std::optional<int> gpu;
    if (there[rank]) gpu = rank % 8;
    Rank me(set, c, gpu, alike);
    for (int number = 0; number < c.steps; ++number) {
      me.step(number, whole);
      const Floats result = me.arrays().result(), left = me.arrays().left();
      auto& results = outcome.results[rank];
      results.insert(results.end(), result.begin(), result.end());
      auto& residuals = outcome.residuals[rank];
      residuals.insert(residuals.end(), left.begin(), left.end());
    }
  });
  return outcome;
}

bool same(const Floats& a, const Floats& b) {
  return cuda::same(DType::float32, std::as_bytes(std::span(a)), std::as_bytes(std::span(b)), true);
}

int cases = 0;

/// Some machines at least have all their arrays on GPUs.
std::vector<bool> anywhere(const Machines& machines) {
  std::vector<bool> there(static_cast<std::size_t>(machines.size()));
  const std::size_t sure = below(machines.count);
  for (int machine = 0; machine < machines.count; ++machine) {
    const auto kind = static_cast<std::size_t>(machine) == sure ? 0 : below(4);
    for (int rank = 0; rank < machines.ranks; ++rank)
      there[machine * machines.ranks + rank] = kind < 2 || (kind == 2 && below(2));
  }
  return there;
}

Outcome check(const Case& c, const Machines& machines, bool whole = false) {
  const auto size = static_cast<std::size_t>(machines.size());
  const auto expected = run(c, machines, std::vector<bool>(size), whole);
  const auto found = run(c, machines, anywhere(machines), whole);
  for (std::size_t rank = 0; rank < size; ++rank) {
    CHECK(same(found.results[rank], expected.results[0]));
    CHECK(same(found.residuals[rank], expected.residuals[rank]));
  }
  ++cases;
  return expected;
}

// Cases -------------------------------------------------------------------------------------------

std::vector<Compressed> codes() {
  std::vector<Compressed> all;
  for (const auto name : compressor_names()) all.push_back(make_compressor(name));
  for (int bits = 1; bits <= 8; ++bits) {
    const auto rounding = below(2) ? Rounding::nearest : Rounding::stochastic;
    const std::size_t block = group_of(bits) * (1 + below(2));
    all.push_back(std::make_shared<Quantiser>(
        Quantisation{bits, block, static_cast<Norm>(below(3)), rounding}));
  }
  for (const double ratio : {0.01, 0.3}) {
    all.push_back(std::make_shared<TopK>(ratio));
    all.push_back(std::make_shared<BlockTopK>(ratio, 64));
  }
  all.push_back(std::make_shared<Threshold>(1.5f));
  return all;
}

bool has_gpu_coding(const Compressor& compressor) {
  return compressor.block_code() || compressor.gpu_selection();
}

/// With two ranks on a machine sums have one order.
void check_codes() {
  constexpr std::size_t kCounts[] = {0, 1, 7, 129, 1000, 4098};
  const auto all = codes();
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (!has_gpu_coding(*all[i])) continue;
    const Machines machines{i % 3 ? 2 : 3, 2};
    check({.compressor = all[i],
           .counts = pieces_of(i % 2 ? 4099 : kCounts[below(std::size(kCounts))]),
           .feedback = below(3) != 0,
           .in_place = below(2) == 0,
           .reduction = reduction_of(machines.size()),
           .extreme = below(2) == 0,
           .steps = 3,
           .gathers = below(2) == 0},
          machines);
  }
}

/// The same of exact sums.
void check_more_ranks() {
  for (const Machines machines : {Machines{2, 3}, Machines{2, 4}}) {
    for (const auto name : {"bf16", "int8", "int4"}) {
      check({.compressor = make_compressor(name),
             .counts = {5, 2100},
             .in_place = below(2) == 0,
             .reduction = {.divisor = static_cast<double>(machines.size())}},
            machines, true);
    }
  }
}

/// More segments than are under way at once.
void check_segments() {
  check({.compressor = make_compressor("int8"), .counts = {260001}, .steps = 1}, {2, 2});
}

/// The average of large values, whose sums a payload could not hold.
void check_average() {
  const auto expected = check({.compressor = make_compressor("fp16"),
                               .counts = {3000},
                               .reduction = {.prescale = 1.4e4, .divisor = 4}},
                              {2, 2});
  for (const float x : expected.results[0]) CHECK(std::isfinite(x));
}

// What stays on the host --------------------------------------------------------------------------

void check_deterministic() {
  auto settings = quick();
  settings.deterministic = true;
  Job{.settings = settings}.run([](Communicator& set) {
    Rank(set, {.compressor = make_compressor("int8"), .counts = {300}}, set.rank(), false).step(0);
  });
  ++cases;
}

void check_random_k() {
  Job{}.run([](Communicator& set) {
    Rank(set, {.compressor = std::make_shared<RandomK>(0.1), .counts = {300}}, set.rank(), false)
        .step(0);
  });
  ++cases;
}

/// Two ranks of the second machine use one GPU, which they find out together.
void check_one_gpu() {
  std::vector<std::string> warnings;
  Job{.warnings = &warnings}.run([](Communicator& set) {
    const int gpu = std::min(set.rank(), 2);
    Rank me(set, {.compressor = make_compressor("int8"), .counts = {300}}, gpu, set.rank() < 2);
    for (int number = 0; number < 2; ++number) me.step(number);
  });
  CHECK(warnings.size() == 1 && contains(warnings[0], "ranks 2 and 3 use the same GPU"));
  ++cases;
}

/// A rank has its arrays on another GPU than before: its machine goes by the host, and then not.
void check_other_gpu() {
  Job{}.run([](Communicator& set) {
    const Case c{.compressor = make_compressor("int8"), .counts = {300}};
    Rank(set, c, set.rank(), true).step(0);
    const bool moves = set.rank() == 1;
    Rank(set, c, moves ? 5 : set.rank(), set.rank() >= 2).step(1);
    Rank(set, c, set.rank(), true).step(2);
  });
  ++cases;
}

// What goes wrong ---------------------------------------------------------------------------------

/// A rank dies after so many messages: all hear of it, and no stream is left waiting.
void check_lost_rank() {
  for (int sends = 20; sends < 110; sends += 9) {
    std::vector<std::string> texts(4);
    Job{.faults = {.dies = 1 + sends % 3, .dies_after = sends}}.run([&](Communicator& set) {
      std::list<Rank> calls;  // nobody waits for what they have enqueued before the next finds out
      texts[set.rank()] = thrown_by([&] {
        const Case c{.compressor = make_compressor(sends % 2 ? "bf16" : "int4"),
                     .counts = {3000, 9000}};
        for (int number = 0; number < 40; ++number)
          calls.emplace_back(set, c, set.rank(), true).step(number);
      });
    });
    for (const auto& text : texts) CHECK(!text.empty());
    ++cases;
  }
}

/// A rank takes part in a call, but its GPU does not.
void check_dead_gpu() {
  auto settings = quick();
  settings.stall_timeout = 1;
  std::vector<std::string> texts(4);
  std::barrier all(4);
  Job{.settings = settings}.run([&](Communicator& set) {
    Rank me(set, {.compressor = make_compressor("int8"), .counts = {3000}}, set.rank(), true);
    me.step(0);
    me.arrays().result();
    all.arrive_and_wait();
    if (set.rank() == 1) fake_kill()(1);
    all.arrive_and_wait();
    texts[set.rank()] = thrown_by([&] { me.step(1); });
    all.arrive_and_wait();
    me.arrays().result();  // waits for nothing any more
  });
  for (const auto& text : texts) CHECK(!text.empty());
  ++cases;
}

}  // namespace

int main() {
  setenv("FAKE_CUDA_DEVICES", "8", 1);
  if (!Nccl::missing().empty() || !is_fake()) {
    std::printf("nothing to try: this is not the fake NCCL\n");
    return 0;
  }
  alarm(300);  // rather than hang
  check_codes();
  check_more_ranks();
  check_segments();
  check_average();
  check_deterministic();
  check_random_k();
  check_one_gpu();
  check_other_gpu();
  check_lost_rank();
  check_dead_gpu();
  std::printf("slices: %d cases\n", cases);
}
