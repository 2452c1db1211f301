// Compressed allreduces of ranks that are threads, whose arrays are on a GPU or on the host: in any
// mixture all get what they get where all are on the host, bit for bit, and keep the same
// residuals.
#include "collective/compressed.h"

#include <cstdio>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "collective/communicator.h"
#include "collectives.h"
#include "compress/quantiser.h"
#include "compress/table.h"
#include "compress/threshold.h"
#include "compress/top_k.h"
#include "compressed_arrays.h"
#include "core/error.h"
#include "core/keep.h"
#include "transport/inproc.h"

namespace {

using namespace ronde;
using namespace ronde::cuda;

/// What each rank has after each step.
struct Outcome {
  std::vector<Floats> results, residuals;
};

/// The same for every run.
Floats values_of(const Case& c, int rank, int step) {
  std::mt19937_64 random(seed() + 1000 * rank + step);
  std::normal_distribution<float> normal;
  Floats values(c.count());
  for (auto& x : values) {
    x = normal(random);
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

std::vector<int> first(int size) {
  std::vector<int> ranks(size);
  for (int i = 0; i < size; ++i) ranks[i] = i;
  return ranks;
}

using Wrapped = std::function<std::shared_ptr<Transport>(std::shared_ptr<Transport>)>;

void run_ranks(int size, const Faults& faults, const Wrapped& wrapped,
               const std::function<void(Communicator&)>& program, bool gathers = false) {
  InprocWorld world(size, faults);
  std::vector<std::unique_ptr<Communicator>> ranks;
  for (int rank = 0; rank < size; ++rank)
    ranks.push_back(
        std::make_unique<Communicator>(std::make_shared<Control>(world.transport(rank, 0), Hooks{}),
                                       wrapped(world.transport(rank, 1)), 0, first(size), quick()));
  const Link by_slices{.alpha = 1e-12, .overhead = 1e-12, .beta = 1}, to_all{.alpha = 1};
  for (auto& rank : ranks) rank->set_link(gathers ? to_all : by_slices);
  std::vector<std::thread> threads;
  for (auto& rank : ranks) threads.emplace_back([&] { program(*rank); });
  for (auto& thread : threads) thread.join();
}

std::shared_ptr<Transport> as_it_is(std::shared_ptr<Transport> transport) { return transport; }

void step(Communicator& communicator, const Case& c, Arrays& arrays, int number) {
  const Floats values = values_of(c, communicator.rank(), number);
  const auto pieces = arrays.pieces(c, values);
  communicator.allreduce_compressed(call("compressed"), pieces, c.reduction,
                                    {.compressor = c.compressor,
                                     .residual = arrays.residual(),
                                     .key = static_cast<std::uint64_t>(77 + number),
                                     .per_rank = true});
}

/// `there`: which ranks have their arrays on a GPU.
Outcome run(const Case& c, const std::vector<bool>& there) {
  Outcome outcome;
  outcome.results.resize(c.size);
  outcome.residuals.resize(c.size);
  run_ranks(
      c.size, {.seed = seed(), .delay = 0.1}, as_it_is,
      [&](Communicator& communicator) {
        const int rank = communicator.rank();
        std::unique_ptr<Arrays> arrays;
        if (there[rank]) {
          CHECK(compresses_on_gpu(communicator.lane(), *c.compressor, true));
          arrays = std::make_unique<GpuArrays>(c);
        } else {
          arrays = std::make_unique<HostArrays>(c);
        }
        for (int number = 0; number < c.steps; ++number) {
          step(communicator, c, *arrays, number);
          const Floats result = arrays->result(), left = arrays->left();
          auto& results = outcome.results[rank];
          results.insert(results.end(), result.begin(), result.end());
          auto& residuals = outcome.residuals[rank];
          residuals.insert(residuals.end(), left.begin(), left.end());
        }
      },
      c.gathers);
  return outcome;
}

bool same(const Floats& a, const Floats& b) {
  return cuda::same(DType::float32, std::as_bytes(std::span(a)), std::as_bytes(std::span(b)), true);
}

int cases = 0;

void check(const Case& c) {
  const auto expected = run(c, std::vector<bool>(c.size));
  std::vector<bool> there(c.size);
  there[below(c.size)] = true;
  for (int rank = 0; rank < c.size; ++rank)
    if (below(2)) there[rank] = true;
  const auto found = run(c, there);
  for (int rank = 0; rank < c.size; ++rank) {
    CHECK(same(found.results[rank], expected.results[0]));
    CHECK(same(found.residuals[rank], expected.residuals[rank]));
  }
  ++cases;
}

std::vector<Compressed> codes() {
  std::vector<Compressed> all;
  for (const auto name : compressor_names()) all.push_back(make_compressor(name));
  for (int bits = 1; bits <= 8; ++bits) {
    for (const auto rounding : {Rounding::nearest, Rounding::stochastic}) {
      const auto norm = static_cast<Norm>(below(3));
      const std::size_t block = group_of(bits) * (1 + below(2));
      all.push_back(std::make_shared<Quantiser>(Quantisation{bits, block, norm, rounding}));
    }
  }
  for (const double ratio : {0.01, 0.3, 1.0}) {
    all.push_back(std::make_shared<TopK>(ratio));
    all.push_back(std::make_shared<BlockTopK>(ratio, 64));
  }
  all.push_back(std::make_shared<Threshold>(1.5f));
  return all;
}

void check_codes() {
  constexpr std::size_t kCounts[] = {0, 1, 7, 129, 1000, 4099};
  constexpr int kSizes[] = {1, 2, 3, 4, 9};
  const auto all = codes();
  for (std::size_t i = 0; i < all.size(); ++i) {
    for (const int size : {kSizes[i % 5], kSizes[(i + 1 + below(4)) % 5]}) {
      check({.compressor = all[i],
             .size = size,
             .counts = pieces_of(kCounts[below(std::size(kCounts))]),
             .feedback = below(3) != 0,
             .in_place = below(2) == 0,
             .reduction = reduction_of(size),
             .extreme = below(2) == 0,
             .gathers = below(2) == 0});
    }
  }
}

/// More segments than are under way at once, and slices of different lengths.
void check_segments() {
  const std::vector<Compressed> all = {make_compressor("bf16"), make_compressor("int8"),
                                       std::make_shared<TopK>(0.7)};
  for (const auto& compressor : all) {
    check({.compressor = compressor, .size = 2, .counts = {260001}, .steps = 1});
  }
}

// What goes wrong ---------------------------------------------------------------------------------

/// Of the long messages from rank 1 to rank 0 those with this tag are not what they should be.
class Rubbish final : public Transport {
 public:
  enum class Kind { bad_scale, truncated };

  Rubbish(std::shared_ptr<Transport> transport, Kind kind, int tag)
      : transport_(std::move(transport)), kind_(kind), tag_(tag) {}
  int rank() const override { return transport_->rank(); }
  int size() const override { return transport_->size(); }
  Request send(int peer, int tag, ConstBuffer message) override {
    constexpr std::size_t kLong = 500;
    if (rank() != 1 || peer != 0 || message.bytes < kLong || tag != tag_)
      return transport_->send(peer, tag, message);
    const auto other =
        std::make_shared<std::vector<std::byte>>(message.data, message.data + message.bytes);
    keep_until_exit(other);
    const float scale = -1.0f;
    std::memcpy(other->data(), &scale, sizeof scale);
    const bool truncated = kind_ == Kind::truncated;
    return transport_->send(peer, tag, {other->data(), other->size() - (truncated ? 1 : 0), {}});
  }
  Request recv(int peer, int tag, Buffer capacity) override {
    return transport_->recv(peer, tag, capacity);
  }
  std::optional<std::size_t> test(Request request) override { return transport_->test(request); }
  std::int64_t bytes_sent() const override { return transport_->bytes_sent(); }

 private:
  const std::shared_ptr<Transport> transport_;
  const Kind kind_;
  const int tag_;
};

/// What each rank complains of.
std::vector<std::string> failures(const Case& c, const std::vector<bool>& there,
                                  const Faults& faults, const Wrapped& wrapped) {
  std::vector<std::string> texts(c.size);
  run_ranks(c.size, faults, wrapped, [&](Communicator& communicator) {
    const int rank = communicator.rank();
    std::unique_ptr<Arrays> arrays;
    if (there[rank])
      arrays = std::make_unique<GpuArrays>(c);
    else
      arrays = std::make_unique<HostArrays>(c);
    try {
      for (int number = 0; number < c.steps; ++number) step(communicator, c, *arrays, number);
    } catch (const Error& error) {
      texts[rank] = error.what();
    }
  });
  return texts;
}

/// The part that rank 1 sends, and its sum, of the first call of a communicator.
void check_rubbish() {
  constexpr int kParts = 3, kSums = 4;
  for (const int size : {3, 10}) {
    for (const auto kind : {Rubbish::Kind::bad_scale, Rubbish::Kind::truncated}) {
      for (const int tag : {kParts, kSums}) {
        const auto wrapped = [&](std::shared_ptr<Transport> transport) {
          return std::make_shared<Rubbish>(std::move(transport), kind, tag);
        };
        const Case c{.compressor = make_compressor("int8"),
                     .size = size,
                     .counts = {static_cast<std::size_t>(3000 * size)},
                     .steps = 1};
        const auto here = failures(c, std::vector<bool>(size), {}, wrapped);
        const auto there = failures(c, std::vector<bool>(size, true), {}, wrapped);
        CHECK(here[0].find("rank 0 <- 1") != std::string::npos);
        CHECK(there[0] == here[0]);
        if (tag == kParts) CHECK(!there[2].empty());
        ++cases;
      }
    }
  }
}

void check_deaths() {
  for (int sends = 0; sends < 40; sends += 3) {
    const Case c{.compressor = make_compressor(sends % 2 ? "bf16" : "int4"),
                 .size = 3,
                 .counts = {10000, 30000},
                 .steps = 20};
    const auto texts =
        failures(c, {true, true, sends % 4 != 0}, {.dies = 2, .dies_after = sends}, as_it_is);
    for (const auto& text : texts) CHECK(!text.empty());
    ++cases;
  }
}

}  // namespace

int main() {
  check_codes();
  check_segments();
  check_rubbish();
  check_deaths();
  std::printf("compressed: %d cases\n", cases);
}
