#include "collective/link.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "collective/exchange.h"
#include "collective/execution.h"
#include "collective/memory.h"
#include "kernels/kernels.h"

namespace ronde {
namespace {

constexpr std::size_t kSmall = 8, kLarge = 64 << 10;  // bytes of a message
constexpr int kSmallMessages = 8;
constexpr int kBatches = 3;

// A link may take some hundred kilobytes at once and only then show its rate: it is the time that
// *more* bytes take that counts, and so many of them that it stands out from the noise.
constexpr double kEnough = 5e-3;  // seconds
constexpr int kMostLargeMessages = 64;

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// The largest that any rank gives.
Task<double> slowest(Lane& lane, Operation& operation, double seconds) {
  const auto all = operation.zeros<double>(lane.size());
  all[lane.rank()] = seconds;
  co_await exchange_all(lane, Chunks::even(all.size_bytes(), lane.size()), buffer_of(all));
  co_return *std::max_element(all.begin(), all.end());
}

/// One exchange of so many messages each way: the mean of `repeats`, in the best of some batches,
/// on the slowest rank.
Task<double> exchange(Lane& lane, Operation& operation, std::size_t bytes, int messages,
                      int repeats) {
  Transport& ring = lane.outward();
  // As many buffers as messages travel at once, so that none waits for another's memory.
  const int places = std::min<int>(messages, 2 * kSmallMessages);
  auto schedule = std::make_shared<Schedule>();
  schedule->steps = 1;
  const int right = (ring.rank() + 1) % ring.size();
  const int left = (ring.rank() + ring.size() - 1) % ring.size();
  for (int i = 0; i < messages; ++i) {
    schedule->send(0, right, {Where::input, 0, bytes});
    schedule->recv(0, left, {Where::data, i % places * bytes, bytes});
  }
  const auto input = operation.zeros<std::byte>(bytes);
  const auto data = operation.zeros<std::byte>(places * bytes);
  double best = std::numeric_limits<double>::infinity();
  for (int batch = 0; batch < kBatches; ++batch) {
    const auto start = Clock::now();
    for (int i = 0; i < repeats; ++i) {
      const auto round = std::make_shared<Execution>(
          ring, schedule, Operands{buffer_of(input), buffer_of(data)}, Element{},
          lane.exchange_tag(), Depth{2 * places, places * bytes}, "measurement of the link");
      co_await round;
    }
    best = std::min(best, seconds_since(start) / repeats);
  }
  co_return co_await slowest(lane, operation, best);
}

double seconds_to_reduce(std::size_t bytes) {
  std::vector<float> numbers(bytes / sizeof(float), 1.0f);
  const auto start = Clock::now();
  ronde::reduce(ReduceOp::max, DType::float32, numbers.data(), numbers.data(), numbers.data(),
                numbers.size());
  return seconds_since(start);
}

}  // namespace

Task<Link> measured_link(Lane& lane, Operation& operation) {
  Link link;
  link.alpha = co_await exchange(lane, operation, kSmall, 1, 10);
  const double several = co_await exchange(lane, operation, kSmall, kSmallMessages, 5);
  link.overhead = (several - link.alpha) / (kSmallMessages - 1);

  int messages = 1;
  double less = co_await exchange(lane, operation, kLarge, 1, 1);
  double more = co_await exchange(lane, operation, kLarge, 2, 1);
  while (more < kEnough && 2 * messages < kMostLargeMessages) {
    messages *= 2;
    less = more;
    more = co_await exchange(lane, operation, kLarge, 2 * messages, 1);
  }
  const auto bytes = static_cast<double>(messages * kLarge);
  // Where something else disturbed the measurement of less: no link is twice as fast as it seemed.
  link.beta = std::max((more - less) / bytes, more / (2 * bytes) / 2);

  const double reducing = co_await slowest(lane, operation, seconds_to_reduce(kLarge));
  link.gamma = reducing / static_cast<double>(kLarge);
  for (double* value : {&link.alpha, &link.overhead, &link.beta, &link.gamma})
    *value = std::max(*value, 1e-12);
  co_return link;
}

}  // namespace ronde
