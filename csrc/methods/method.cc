#include "methods/method.h"

#include <string_view>

#include "cuda/reduce.h"
#include "cuda/scratch.h"
#include "cuda/upload.h"

namespace ronde {

std::size_t Bucket::elements() const {
  std::size_t elements = 0;
  for (const auto& array : arrays) elements += array.input.size();
  return elements;
}

std::vector<Piece> Bucket::pieces() const {
  std::vector<Piece> pieces;
  for (const auto& [parameter, input, output] : arrays) {
    const auto* const in = reinterpret_cast<const std::byte*>(input.data());
    auto* const out = reinterpret_cast<std::byte*>(output.data());
    pieces.push_back({{in, input.size_bytes(), device}, {out, output.size_bytes(), device}});
  }
  return pieces;
}

cuda::Queue Ranks::queue(const Device& gpu) {
  auto& device = cuda::Device::get(gpu.number);
  auto& stream = streams_[gpu.number];
  if (!stream) stream = cuda::stream_for_call(device);
  return {device, stream};
}

std::span<float> Ranks::values_of(Vector& vector, const Device& where) {
  if (!where.is_gpu()) return vector.on_host();
  const auto [device, stream] = queue(where);
  return vector.on_device(device, stream);
}

std::span<float> Ranks::floats(const Device& where, std::size_t count) {
  if (!where.is_gpu()) return room<float>(count);
  const auto [device, stream] = queue(where);
  auto& pool = cuda::ScratchPool::of(device, cuda::Memory::Kind::device);
  const auto scratch = std::make_shared<cuda::Scratch>(pool.take(stream, count * sizeof(float)));
  operation.keep(scratch);
  return {reinterpret_cast<float*>(scratch->data()), count};
}

std::vector<Piece> Ranks::lend(const Bucket& bucket) {
  if (!bucket.device.is_gpu()) return bucket.pieces();
  const auto [device, stream] = queue(bucket.device);
  const auto order = std::make_shared<cuda::Order>(device);
  order->begins_after(stream);
  operation.keep(order);
  Bucket lent = bucket;
  lent.device.order = order.get();
  return lent.pieces();
}

void Ranks::take_back(std::span<const Piece> lent) {
  const auto& where = lent.front().input.device;
  if (where.is_gpu()) static_cast<cuda::Order*>(where.order)->order_before(queue(where).stream);
}

Task<> Ranks::allreduce(std::vector<Piece> pieces, Reduction reduction) {
  auto& route = routes.choose(Collective::allreduce, std::string_view());
  co_await route.allreduce(operation, pieces, reduction, std::string_view());
}

namespace {

/// Stores the values times a factor, and something added to them or nothing.
void scale(std::span<const float> values, float factor, std::span<const float> added,
           std::span<float> out) {
  for (std::size_t k = 0; k < out.size(); ++k) out[k] = values[k] * factor;
  for (std::size_t k = 0; k < added.size(); ++k) out[k] += added[k];
}

/// The same on a GPU; what is added is on the host.
void scale(const cuda::Queue& queue, std::span<const float> values, float factor,
           std::span<const float> added, std::span<float> out) {
  const auto& [device, stream] = queue;
  cuda::scale(device, stream, {.prescale = factor}, out.data(), values.data(), out.size());
  if (added.empty()) return;
  const auto more = cuda::uploaded(device, stream, std::as_bytes(added));
  const void* const both[] = {out.data(), more.data()};
  cuda::reduce_many(device, stream, {}, out.data(), both, out.size());
}

}  // namespace

Bucket scaled(Ranks& ranks, const Bucket& bucket, std::span<const std::vector<float>> added) {
  Bucket result = bucket;
  const auto factor = static_cast<float>(std::exchange(result.reduction.prescale, 1.0));
  for (std::size_t i = 0; i < result.arrays.size(); ++i) {
    auto& input = result.arrays[i].input;
    const std::span<const float> more = added.empty() ? std::span<const float>() : added[i];
    if (bucket.reduction.prescale == 1.0 && more.empty()) continue;
    const auto values = ranks.floats(bucket.device, input.size());
    if (bucket.device.is_gpu())
      scale(ranks.queue(bucket.device), input, factor, more, values);
    else
      scale(input, factor, more, values);
    input = values;
  }
  return result;
}

/// Calls may come to this in another order on each rank. So ranks that draw alike agree on the
/// step.
Task<> Codec::reduce(Ranks& ranks, std::vector<Bucket> buckets) {
  const auto held = ranks.operation.held();
  std::uint64_t step = steps.fetch_add(buckets.size());
  if (draws_alike() && !ranks.on_one_machine()) {
    const std::vector latest{ranks.room<std::uint64_t>(1)};
    latest[0][0] = step;
    co_await ranks.combine(latest, DType::uint64, ReduceOp::max);
    step = latest[0][0];
    const auto next = step + buckets.size();
    for (auto known = steps.load(); known < next && !steps.compare_exchange_weak(known, next);) {
    }
  }
  for (const auto& bucket : buckets) {
    co_await reduce(ranks, bucket, std::span<float>(), step++);
    ranks.operation.release(held);
  }
}

}  // namespace ronde
