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
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "cuda/cast.h"
#include "cuda/device.h"
#include "cuda/pack.h"
#include "cuda/quantise.h"
#include "cuda/reduce.h"
#include "cuda/top_k.h"

namespace {

using namespace ronde;
using namespace ronde::cuda;

class Bench {
 public:
  Bench(std::size_t count, int turns) : count_(count), turns_(turns) {}

  void run() {
    draw();
    // First, so that the others have something to be compared with.
    measure("copy", 8 * count_, [&] { device_.copy(stream_, c_->data(), a_->data(), 4 * count_); });
    reductions();
    buckets();
    casts();
    for (const int bits : {4, 8}) codecs("int" + std::to_string(bits), linear(bits));
    codecs("fp8", {Code::e4m3, {128, Norm::max}});
    sums_of_payloads();
    selections();
  }

 private:
  void reductions() {
    const void* const two[] = {a_->data(), b_->data()};
    measure("reduce 2 to 1", 12 * count_, [&] {
      reduce_many(device_, stream_, {.dtype = DType::float32}, c_->data(), two, count_);
    });
    measure("scale", 8 * count_, [&] {
      const Reduction half{.dtype = DType::float32, .prescale = 0.5};
      reduce_many(device_, stream_, half, c_->data(), {two, 1}, count_);
    });
  }

  /// Of the lengths that a model has: a few large arrays, many small ones.
  void buckets() {
    std::vector<cuda::Array> arrays;
    std::size_t done = 0;
    for (std::size_t i = 0; done < 4 * count_; ++i) {
      const std::size_t bytes = i % 10 == 0 ? count_ / 8 / 4 * 4 : 4 * (100 + i % 1000);
      arrays.push_back({a_->data() + done, std::min(bytes, 4 * count_ - done)});
      done += arrays.back().bytes;
    }
    measure("pack", 8 * count_, [&] { pack(device_, stream_, arrays, c_->data()); });
    measure("unpack", 8 * count_, [&] { unpack(device_, stream_, c_->data(), arrays); });
  }

  void casts() {
    draw();
    CastEncoding encoding{Code::bfloat16, floats(a_), floats(b_), count_, c_->data(), nullptr};
    measure("bf16 with feedback", 14 * count_, [&] { encode_cast(device_, stream_, encoding); });
    CastDecoding decoding{Code::bfloat16, c_->data(), floats(a_), count_, Store::add};
    measure("bf16 decode, add", 10 * count_, [&] { decode_cast(device_, stream_, decoding); });
  }

  static BlockCode linear(int bits) { return {linear_code(bits), {1024, Norm::max}}; }

  void codecs(const std::string& name, const BlockCode& code) {
    draw();
    const std::size_t bytes = payload_of(code);
    measure(name + " with feedback", 12 * count_ + bytes, [&] {
      const Encoded to{.count = count_, .payload = c_->data(), .residual = floats(b_)};
      encode(device_, stream_, code, floats(a_), to);
    });
    for (const auto store : {Store::copy, Store::add}) {
      const bool adds = store == Store::add;
      measure(name + (adds ? " decode, add" : " decode"), (adds ? 8 : 4) * count_ + bytes, [&] {
        decode(device_, stream_, code, c_->data(), {floats(a_), count_}, store, nullptr);
      });
    }
  }

  /// Of 8 ranks, int4, into a payload with feedback.
  void sums_of_payloads() {
    draw();
    const auto code = linear(4);
    const std::size_t bytes = payload_of(code);
    encode(device_, stream_, code, floats(a_), Encoded{.count = count_, .payload = c_->data()});
    const std::vector<const void*> parts(8, c_->data());
    const Memory payload(device_, Memory::Kind::device, bytes);
    measure("int4 decode, reduce, encode of 8", 9 * bytes + 8 * count_, [&] {
      const Encoded to{.count = count_, .payload = payload.data(), .residual = floats(b_)};
      encode(device_, stream_, code, Sum{.parts = parts, .factor = 0.125f}, to);
    });
  }

  void selections() {
    for (const double ratio : {0.001, 0.01}) {
      draw();
      const auto k =
          std::max<std::size_t>(1, static_cast<std::size_t>(ratio * static_cast<double>(count_)));
      const Memory scratch(device_, Memory::Kind::device, top_k_scratch(device_, count_, k));
      const Memory positions(device_, Memory::Kind::device, 4 * k),
          values(device_, Memory::Kind::device, 4 * k), found(device_, Memory::Kind::device, 4);
      const Entries out{.positions = reinterpret_cast<u32*>(positions.data()),
                        .values = reinterpret_cast<float*>(values.data()),
                        .room = static_cast<u32>(k),
                        .count = reinterpret_cast<u32*>(found.data())};
      measure("top-k " + std::to_string(ratio).substr(0, 5), 12 * count_, [&] {
        top_k(device_, stream_, {floats(a_), floats(b_), count_}, k, out, scratch.data());
      });
    }
  }

  std::size_t payload_of(const BlockCode& code) const {
    const int bits = code.code == Code::e4m3 ? 8 : static_cast<int>(code.code) + 1;
    return block_bytes(bits, code.blocks.size, count_);
  }

  static float* floats(const std::unique_ptr<Memory>& memory) {
    return reinterpret_cast<float*>(memory->data());
  }

  std::unique_ptr<Memory> vector() {
    return std::make_unique<Memory>(device_, Memory::Kind::device, 4 * count_);
  }

  /// Values that look like gradients, in place of what kernels have made of them.
  void draw() {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> drawn(std::min<std::size_t>(count_, 1 << 20));
    for (auto& x : drawn) x = normal(random);
    for (const auto& memory : {a_.get(), b_.get()}) {
      std::ranges::reverse(drawn);
      for (std::size_t i = 0; i < count_; i += drawn.size())
        device_.copy(stream_, memory->data() + 4 * i, drawn.data(),
                     4 * std::min(drawn.size(), count_ - i));
      stream_.synchronise();
    }
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
  const std::unique_ptr<Memory> a_ = vector(), b_ = vector(), c_ = vector();
  double copy_rate_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  const std::size_t count = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 100'000'000;
  Bench(count, argc > 2 ? std::atoi(argv[2]) : 20).run();
}
