// Times the kernels on a GPU against a copy from the device to itself, of as many bytes (read and
// written) in the same time.
//
//   cuda_bench [ELEMENTS] [TURNS]     100000000 float32, median of 20 turns
//
// Prints a line of JSON for each: name, bytes moved, microseconds (median, least, greatest), and
// the share of the bandwidth of the copy.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "cuda/device.h"
#include "cuda/reduce.h"

namespace {

using namespace ronde;
using namespace ronde::cuda;

class Bench {
 public:
  Bench(std::size_t count, int turns) : count_(count), turns_(turns) {}

  void run() {
    const auto a = vector(), b = vector(), c = vector();
    // First, so that the others have something to be compared with.
    measure("copy", 8 * count_, [&] { device_.copy(stream_, c->data(), a->data(), 4 * count_); });
    const void* const two[] = {a->data(), b->data()};
    measure("reduce 2 to 1", 12 * count_, [&] {
      reduce_many(device_, stream_, {.dtype = DType::float32}, c->data(), two, count_);
    });
    measure("scale", 8 * count_, [&] {
      const Reduction half{.dtype = DType::float32, .prescale = 0.5};
      reduce_many(device_, stream_, half, c->data(), {two, 1}, count_);
    });
  }

 private:
  std::unique_ptr<Memory> vector() {
    auto memory = std::make_unique<Memory>(device_, Memory::Kind::device, 4 * count_);
    device_.fill(stream_, memory->data(), 0x3f, 4 * count_);
    return memory;
  }

  /// `bytes`: read and written.
  void measure(const std::string& name, std::size_t bytes, const std::function<void()>& enqueue) {
    std::vector<double> times;
    for (int turn = 0; turn < turns_ + 3; ++turn) {
      Event begin(device_, Event::Time::known), end(device_, Event::Time::known);
      begin.record(stream_);
      enqueue();
      end.record(stream_);
      stream_.synchronise();
      if (turn >= 3) times.push_back(1e3 * end.since(begin));
    }
    std::ranges::sort(times);
    const double median = times[times.size() / 2], rate = static_cast<double>(bytes) / median;
    if (copy_rate_ == 0) copy_rate_ = rate;
    std::printf(
        "{\"name\": \"%s\", \"bytes\": %zu, \"median_us\": %.2f, \"least_us\": %.2f, "
        "\"greatest_us\": %.2f, \"gigabytes_per_second\": %.1f, \"of_copy\": %.3f}\n",
        name.c_str(), bytes, median, times.front(), times.back(), rate / 1e3, rate / copy_rate_);
    std::fflush(stdout);
  }

  const std::size_t count_;
  const int turns_;
  Device& device_ = Device::get(0);
  const Stream stream_{device_};
  double copy_rate_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  const std::size_t count = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 100'000'000;
  Bench(count, argc > 2 ? std::atoi(argv[2]) : 20).run();
}
