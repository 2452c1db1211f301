// The arrays of a rank of compressed_test.cc and slices_test.cc, on a GPU or on the host.
#pragma once

#include <list>
#include <memory>
#include <numeric>
#include <random>
#include <span>
#include <utility>
#include <vector>

#include "compress/compressor.h"
#include "core/pieces.h"
#include "core/reduction.h"
#include "cuda/order.h"
#include "on_device.h"

namespace ronde::cuda {

using Floats = std::vector<float>;
using Compressed = std::shared_ptr<const Compressor>;

inline std::mt19937_64 draws(seed());
inline std::size_t below(std::size_t limit) { return draws() % limit; }

/// Of several pieces, maybe empty ones.
inline std::vector<std::size_t> pieces_of(std::size_t count) {
  std::vector<std::size_t> counts;
  for (std::size_t left = count; left && counts.size() < below(4); left -= counts.back())
    counts.push_back(below(left + 1));
  counts.push_back(count - std::accumulate(counts.begin(), counts.end(), std::size_t{0}));
  return counts;
}

inline Reduction reduction_of(int size) {
  switch (below(4)) {
    case 0:
      return {};
    case 1:
      return {.divisor = static_cast<double>(size)};
    case 2:
      return {.prescale = 0.3, .divisor = static_cast<double>(size), .postscale = 1.7};
    default:
      return {.postscale = 0.0};
  }
}

struct Case {
  Compressed compressor;
  int size = 2;
  std::vector<std::size_t> counts;  // of the pieces
  bool feedback = true, in_place = false;
  Reduction reduction = {};
  bool extreme = false;  // values that are not finite, and such
  int steps = 2;
  bool gathers = false;  // if payloads are sparse

  std::size_t count() const {
    std::size_t all = 0;
    for (const auto count : counts) all += count;
    return all;
  }
};

/// The arrays of a rank: as many as there are pieces, each of its own memory.
class Arrays {
 public:
  virtual ~Arrays() = default;
  virtual std::vector<Piece> pieces(const Case& c, const Floats& values) = 0;
  virtual std::span<float> residual() = 0;
  /// After a call.
  virtual Floats result() = 0;
  virtual Floats left() = 0;
};

class HostArrays final : public Arrays {
 public:
  explicit HostArrays(const Case& c) : residual_(c.feedback ? c.count() : 0) {}

  std::vector<Piece> pieces(const Case& c, const Floats& values) override {
    std::vector<Piece> pieces;
    memory_.clear();
    outputs_.clear();
    auto from = values.begin();
    for (const auto count : c.counts) {
      auto& input = memory_.emplace_back(from, from + static_cast<std::ptrdiff_t>(count));
      from += static_cast<std::ptrdiff_t>(count);
      auto& output = c.in_place ? input : memory_.emplace_back(count, -7.0f);
      pieces.push_back({buffer_of(input), buffer_of(output)});
      outputs_.push_back(&output);
    }
    return pieces;
  }
  std::span<float> residual() override { return residual_; }
  Floats result() override {
    Floats all;
    for (const auto* output : outputs_) all.insert(all.end(), output->begin(), output->end());
    return all;
  }
  Floats left() override { return residual_; }

 private:
  static Buffer buffer_of(Floats& values) {
    return {reinterpret_cast<std::byte*>(values.data()), values.size() * sizeof(float), {}};
  }

  std::list<Floats> memory_;
  std::vector<Floats*> outputs_;
  Floats residual_;
};

/// What is copied there is not waited for: only the order says when it is there.
class GpuArrays final : public Arrays {
 public:
  explicit GpuArrays(const Case& c, int ordinal = 0)
      : device_(cuda::Device::get(ordinal)),
        residual_(device_, stream_, bytes_of(c.feedback ? c.count() : 0), 4) {
    device_.fill(stream_, residual_.data(), 0, bytes_of(c.feedback ? c.count() : 0));
    count_ = c.feedback ? c.count() : 0;
    stream_.synchronise();
  }
  ~GpuArrays() override { forget(); }

  std::vector<Piece> pieces(const Case& c, const Floats& values) override {
    forget();
    values_ = values;
    std::vector<Piece> pieces;
    std::size_t from = 0;
    for (const auto count : c.counts) {
      auto& input = memory_.emplace_back(device_, stream_, bytes_of(count), 4 * below(4));
      device_.copy(stream_, input.data(), values_.data() + from, bytes_of(count));
      from += count;
      auto& output = c.in_place
                         ? input
                         : memory_.emplace_back(device_, stream_, bytes_of(count), 4 * below(4));
      if (orders_.empty() || below(2)) orders_.emplace_back(device_);
      const ronde::Device there{MemoryKind::cuda, device_.ordinal(), &orders_.back()};
      pieces.push_back({ConstBuffer{input.data(), bytes_of(count), there},
                        Buffer{output.data(), bytes_of(count), there}});
      outputs_.push_back({output.data(), count, &orders_.back()});
    }
    for (auto& order : orders_) order.begins_after(stream_);
    return pieces;
  }
  std::span<float> residual() override {
    return {reinterpret_cast<float*>(residual_.data()), count_};
  }
  /// The last piece first, as each has to wait for its own order alone.
  Floats result() override {
    Floats all;
    for (auto output = outputs_.rbegin(); output != outputs_.rend(); ++output) {
      output->order->order_before(stream_);
      const Floats part = fetch(output->data, output->count);
      all.insert(all.begin(), part.begin(), part.end());
    }
    return all;
  }
  Floats left() override { return fetch(residual_.data(), count_); }

 private:
  struct Output {
    const std::byte* data;
    std::size_t count;
    Order* order;
  };

  static std::size_t bytes_of(std::size_t count) { return count * sizeof(float); }
  void forget() {
    orders_.clear();  // which wait for what touches the memory
    stream_.synchronise();
    memory_.clear();
    outputs_.clear();
  }
  Floats fetch(const std::byte* data, std::size_t count) {
    Floats values(count);
    device_.copy(stream_, values.data(), data, bytes_of(count));
    stream_.synchronise();
    return values;
  }
  std::size_t below(std::size_t limit) { return random_() % limit; }

  cuda::Device& device_;
  const cuda::Stream stream_{device_};
  std::minstd_rand random_{static_cast<unsigned>(cuda::seed())};
  OnDevice residual_;
  std::size_t count_ = 0;
  Floats values_;
  std::list<OnDevice> memory_;
  std::vector<Output> outputs_;
  std::list<cuda::Order> orders_;
};

}  // namespace ronde::cuda
