// What a link costs, measured by all ranks together.

#include <algorithm>
#include <chrono>
#include <limits>
#include <vector>

#include "collective/communicator.h"
#include "collective/memory.h"
#include "kernels/kernels.h"

namespace ronde {

/// The shortest of `repeats` exchanges with both neighbours of a ring, all ranks at once.
double Communicator::exchange_seconds(const Call& call, std::size_t bytes, int messages,
                                      int repeats) {
  auto schedule = std::make_shared<Schedule>();
  schedule->steps = 1;
  const int right = (rank() + 1) % size(), left = (rank() + size() - 1) % size();
  for (int i = 0; i < messages; ++i) {
    schedule->send(0, right, {Where::input, 0, bytes});
    schedule->recv(0, left, {Where::data, 0, bytes});
  }
  const auto input = allocate_zeros<std::byte>(bytes), data = allocate_zeros<std::byte>(bytes);
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < repeats; ++i) {
    const auto start = std::chrono::steady_clock::now();
    drive(std::make_shared<Execution>(*transport_, schedule,
                                      Operands{buffer_of(input), buffer_of(data)}, Element{},
                                      kFirstDataTag, 2 * messages, "measurement of the link"),
          call);
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    best = std::min(best, elapsed.count());
  }
  return best;
}

void Communicator::measure_link() {
  if (size() == 1) return;
  constexpr std::size_t kSmall = 8, kLarge = 256 << 10;
  constexpr int kMessages = 8;
  Call call;
  call.kind = "measurement of the link";
  Link found;
  guarded(call, [&] {
    agree(call, false);
    const double alpha = exchange_seconds(call, kSmall, 1, 20);
    const double many = exchange_seconds(call, kSmall, kMessages, 10);
    const double large = exchange_seconds(call, kLarge, 1, 5);

    std::vector<float> numbers(kLarge / sizeof(float), 1.0f);
    const auto start = std::chrono::steady_clock::now();
    ronde::reduce(ReduceOp::max, DType::float32, numbers.data(), numbers.data(), numbers.data(),
                  numbers.size());
    const std::chrono::duration<double> reducing = std::chrono::steady_clock::now() - start;

    const auto values = allocate_zeros<double>(4);
    values[0] = alpha;
    values[1] = (many - alpha) / (kMessages - 1);
    values[2] = (large - alpha) / static_cast<double>(kLarge);
    values[3] = reducing.count() / static_cast<double>(kLarge);
    for (auto& value : values) value = std::max(value, 1e-12);
    const Layout layout{
        .rank = rank(), .chunks = Chunks::even(values.size(), size()), .inputs = {}};
    run(Collective::allreduce, layout, {{}, buffer_of(values)},
        element_of({.dtype = DType::float64, .op = ReduceOp::max}), call, "recursive_doubling");
    found = {.alpha = values[0], .overhead = values[1], .beta = values[2], .gamma = values[3]};
  });
  set_link(found);
}

void Communicator::set_link(const Link& link) {
  std::lock_guard turn(mutex_);
  link_ = link;
  plans_.clear();
}

}  // namespace ronde
