#include "methods/method.h"

#include <algorithm>
#include <string_view>

#include "cuda/reduce.h"
#include "cuda/scratch.h"
#include "cuda/upload.h"

namespace ronde {
namespace {

void fill_zero(Ranks& ranks, const Device& where, std::span<float> values) {
  if (!where.is_gpu()) {
    std::ranges::fill(values, 0.0f);
  } else if (!values.empty()) {
    const auto [device, stream] = ranks.queue(where);
    device.fill(stream, values.data(), 0, values.size_bytes());
  }
}

}  // namespace

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

std::vector<std::span<float>> Bucket::split(std::span<float> vector) const {
  std::vector<std::span<float>> parts;
  std::size_t offset = 0;
  for (const auto& array : arrays) {
    parts.push_back(vector.empty() ? vector : vector.subspan(offset, array.input.size()));
    offset += array.input.size();
  }
  return parts;
}

cuda::Queue Ranks::queue(const Device& gpu) {
  auto& device = cuda::Device::get(gpu.number);
  return {device, lane().stream_on(device)};
}

std::span<float> Ranks::values_of(Vector& vector, const Device& where) {
  if (!where.is_gpu()) return vector.on_host();
  const auto [device, stream] = queue(where);
  return vector.on_device(device, stream);
}

std::byte* Ranks::room_on(const Device& gpu, std::size_t bytes) {
  const auto [device, stream] = queue(gpu);
  auto& pool = cuda::ScratchPool::of(device, cuda::Memory::Kind::device);
  const auto scratch = std::make_shared<cuda::Scratch>(pool.take(stream, bytes));
  operation.keep(scratch);
  return scratch->data();
}

std::span<float> Ranks::zeros(const Device& where, std::size_t count) {
  const auto values = room<float>(where, count);
  fill_zero(*this, where, values);
  return values;
}

std::vector<Piece> Ranks::lend(std::vector<Piece> pieces) {
  const auto& where = pieces.front().input.device;
  if (!where.is_gpu()) return pieces;
  const auto [device, stream] = queue(where);
  const auto order = std::make_shared<cuda::Order>(device);
  order->begins_after(stream);
  operation.keep(order);
  for (auto& [input, output] : pieces) input.device.order = output.device.order = order.get();
  return pieces;
}

void Ranks::take_back(std::span<const Piece> lent) {
  const auto& where = lent.front().input.device;
  if (where.is_gpu()) static_cast<cuda::Order*>(where.order)->order_before(queue(where).stream);
}

Task<> Ranks::allreduce(std::vector<Piece> pieces, Reduction reduction) {
  auto& route = routes.choose(Collective::allreduce, std::string_view());
  co_await route.allreduce(operation, pieces, reduction, std::string_view());
}

Task<> Ranks::allreduce(const Bucket& bucket) {
  return allreduce_lent(bucket.pieces(), bucket.reduction);
}

Task<> Ranks::allreduce_lent(std::vector<Piece> pieces, Reduction reduction) {
  const auto lent = lend(std::move(pieces));
  co_await allreduce(lent, reduction);
  take_back(lent);
}

namespace {

/// Stores the values times a factor, and something added to them or nothing.
void scale(std::span<const float> values, float factor, std::span<const float> added,
           std::span<float> out) {
  for (std::size_t k = 0; k < out.size(); ++k) out[k] = values[k] * factor;
  for (std::size_t k = 0; k < added.size(); ++k) out[k] += added[k];
}

/// The same on a GPU.
void scale(const cuda::Queue& queue, std::span<const float> values, float factor,
           std::span<const float> added, std::span<float> out) {
  const auto& [device, stream] = queue;
  cuda::scale(device, stream, {.prescale = factor}, out.data(), values.data(), out.size());
  if (added.empty()) return;
  const void* const both[] = {out.data(), added.data()};
  cuda::reduce_many(device, stream, {}, out.data(), both, out.size());
}

/// `added`: where the bucket is.
Bucket scaled_with(Ranks& ranks, const Bucket& bucket,
                   std::span<const std::span<const float>> added) {
  Bucket result = bucket;
  const auto factor = static_cast<float>(std::exchange(result.reduction.prescale, 1.0));
  for (std::size_t i = 0; i < result.arrays.size(); ++i) {
    auto& input = result.arrays[i].input;
    if (bucket.reduction.prescale == 1.0 && added[i].empty()) continue;
    const auto values = ranks.room<float>(bucket.device, input.size());
    if (bucket.device.is_gpu())
      scale(ranks.queue(bucket.device), input, factor, added[i], values);
    else
      scale(input, factor, added[i], values);
    input = values;
  }
  return result;
}

bool any(std::span<const float> values) {
  return std::ranges::any_of(values, [](float x) { return x != 0; });
}

}  // namespace

Bucket scaled(Ranks& ranks, const Bucket& bucket, std::span<const std::vector<float>> added) {
  const auto& where = bucket.device;
  std::vector<std::span<const float>> there(bucket.arrays.size());
  for (std::size_t i = 0; i < added.size(); ++i) {
    there[i] = added[i];
    if (!where.is_gpu() || added[i].empty()) continue;
    const auto room = ranks.room<float>(where, added[i].size());
    const auto [device, stream] = ranks.queue(where);
    cuda::upload(device, stream, std::as_writable_bytes(room).data(), std::as_bytes(there[i]));
    there[i] = room;
  }
  return scaled_with(ranks, bucket, there);
}

Bucket with_residuals(Ranks& ranks, const Bucket& bucket,
                      std::span<const std::span<float>> residuals) {
  std::vector<std::span<const float>> added(residuals.begin(), residuals.end());
  // The host sees whether there is something to add. (Of a GPU it would have to wait.)
  for (auto& each : added) {
    if (!bucket.device.is_gpu() && !any(each)) each = {};
  }
  const Bucket result = scaled_with(ranks, bucket, added);
  for (const auto& residual : residuals) fill_zero(ranks, bucket.device, residual);
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
    co_await ranks.combine(latest, Device(), DType::uint64, ReduceOp::max);
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
