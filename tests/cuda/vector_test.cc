// Kept vectors that move between host and device: no use is lost, whatever the streams.
#include "methods/vector.h"

#include <cstdio>
#include <map>
#include <memory>

#include "cuda/reduce.h"
#include "on_device.h"

namespace {

using namespace ronde;
using namespace ronde::cuda;

std::size_t below(std::size_t limit) {
  static std::mt19937_64 random(seed());
  return random() % limit;
}

class Uses {
 public:
  explicit Uses(std::size_t count) : expected_(count) {
    for (auto& x : expected_) x = static_cast<float>(below(1000));
    vector_ = std::make_unique<Vector>(expected_);
    CHECK(vector_->size() == count);
  }

  /// On a device of any of them, on either stream: enqueued, and not waited for.
  void use_on_device() {
    auto& device =
        Device::get(static_cast<Ordinal>(below(static_cast<std::size_t>(Driver::get().devices()))));
    const StreamHandle stream = stream_of(device, below(2));
    const auto values = vector_->on_device(device, stream);
    CHECK(values.size() == expected_.size());
    const void* const in = values.data();
    for (int i = 0; i < 3; ++i) {
      const double factor = 1.0 + 1.0 / static_cast<double>(1 + below(8));
      reduce_many(device, stream, {.prescale = factor}, values.data(), {&in, 1}, values.size());
      for (auto& x : expected_) x *= static_cast<float>(factor);
    }
  }

  void use_on_host() {
    const auto values = vector_->on_host();
    CHECK(std::ranges::equal(values, expected_));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = expected_[i] + 1;
    for (auto& x : expected_) x += 1;
  }

 private:
  static StreamHandle stream_of(const Device& device, std::size_t number) {
    static auto& streams = *new std::map<std::pair<Ordinal, std::size_t>, Stream>;
    return streams.try_emplace({device.ordinal(), number}, device).first->second;
  }

  std::vector<float> expected_;
  std::unique_ptr<Vector> vector_;
};

}  // namespace

int main() {
  int cases = 0;
  for (const std::size_t count : {0, 1, 7, 1000, 20001}) {
    for (int round = 0; round < 4; ++round) {
      Uses uses(count);
      for (int i = 0; i < 12; ++i) {
        if (below(3) == 0)
          uses.use_on_host();
        else
          uses.use_on_device();
      }
      if (round % 2) uses.use_on_host();  // or it ends with something under way
      ++cases;
    }
  }
  std::printf("%d vectors\n", cases);
}
