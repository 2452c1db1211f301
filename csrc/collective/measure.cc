// What a link costs, measured by all ranks together.
//
// In every exchange each rank sends to the next one of its ring and receives from the one before,
// so that all links are busy both ways, as they are in a collective. Usually all ranks make one
// ring. Where several ranks of each machine drive the network, those of each local rank make one,
// and all rings exchange at once. What is measured is the mean of a batch, since a rank that comes
// late to a single exchange finds its message waiting.

#include <algorithm>
#include <chrono>
#include <limits>
#include <memory>
#include <vector>

#include "collective/communicator.h"
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

}  // namespace

/// One exchange of so many messages each way: the mean of `repeats`, in the best of some batches.
double Communicator::exchange_seconds(const Call& call, std::size_t bytes, int messages,
                                      int repeats) {
  Transport& ring = outward();
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
  const auto input = allocate_zeros<std::byte>(bytes);
  const auto data = allocate_zeros<std::byte>(places * bytes);
  const Depth depth{2 * places, places * bytes};
  double best = std::numeric_limits<double>::infinity();
  for (int batch = 0; batch < kBatches; ++batch) {
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < repeats; ++i) {
      drive(std::make_shared<Execution>(ring, schedule, Operands{buffer_of(input), buffer_of(data)},
                                        Element{}, kTextTag, depth, "measurement of the link"),
            call);
    }
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    best = std::min(best, elapsed.count() / repeats);
  }
  return best;
}

/// The largest that any rank gives.
double Communicator::slowest(const Call& call, double seconds) {
  const auto all = allocate_zeros<double>(size());
  all[rank()] = seconds;
  pass_round(call, Chunks::even(all.size_bytes(), size()), buffer_of(all));
  return *std::max_element(all.begin(), all.end());
}

Link Communicator::measured(const Call& call) {
  const auto exchange = [&](std::size_t bytes, int messages, int repeats) {
    return slowest(call, exchange_seconds(call, bytes, messages, repeats));
  };
  Link link;
  link.alpha = exchange(kSmall, 1, 10);
  link.overhead = (exchange(kSmall, kSmallMessages, 5) - link.alpha) / (kSmallMessages - 1);

  int messages = 1;
  double less = exchange(kLarge, 1, 1), more = exchange(kLarge, 2, 1);
  while (more < kEnough && 2 * messages < kMostLargeMessages) {
    messages *= 2;
    less = more;
    more = exchange(kLarge, 2 * messages, 1);
  }
  const auto bytes = static_cast<double>(messages * kLarge);
  // Where something else disturbed the measurement of less: no link is twice as fast as it seemed.
  link.beta = std::max((more - less) / bytes, more / (2 * bytes) / 2);

  std::vector<float> numbers(kLarge / sizeof(float), 1.0f);
  const auto start = std::chrono::steady_clock::now();
  ronde::reduce(ReduceOp::max, DType::float32, numbers.data(), numbers.data(), numbers.data(),
                numbers.size());
  const std::chrono::duration<double> reducing = std::chrono::steady_clock::now() - start;
  link.gamma = slowest(call, reducing.count() / static_cast<double>(kLarge));

  for (double* value : {&link.alpha, &link.overhead, &link.beta, &link.gamma})
    *value = std::max(*value, 1e-12);
  return link;
}

void Communicator::set_link(const Link& link) {
  std::lock_guard turn(mutex_);
  keep_link(link);
}

void Communicator::keep_link(const Link& link) {
  link_ = link;
  link_known_ = true;
  explain_link();
  plans_.clear();
  piggybacks_.clear();
}

}  // namespace ronde
