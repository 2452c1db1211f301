#include "collective/staging.h"

#include <algorithm>
#include <memory>

#include "cuda/order.h"
#include "cuda/scratch.h"

namespace ronde {
namespace {

cuda::Order& order_of(ConstBuffer memory) {
  return *static_cast<cuda::Order*>(memory.device.order);
}

/// Until the caller's streams have come to where these arrays may be touched.
class Begun final : public Work {
 public:
  explicit Begun(std::vector<cuda::Order*> orders) : orders_(std::move(orders)) {}

  Progress progress() override {
    const auto is_begun = [](const auto* order) { return order->begun(); };
    return std::ranges::all_of(orders_, is_begun) ? Progress::done : Progress::idle;
  }

 private:
  const std::vector<cuda::Order*> orders_;
};

/// Until what has been enqueued has run.
class Copied final : public Work {
 public:
  explicit Copied(std::vector<std::unique_ptr<cuda::Event>> events) : events_(std::move(events)) {}

  Progress progress() override {
    const auto is_reached = [](const auto& event) { return event->reached(); };
    return std::ranges::all_of(events_, is_reached) ? Progress::done : Progress::idle;
  }

 private:
  const std::vector<std::unique_ptr<cuda::Event>> events_;
};

}  // namespace

bool on_gpu(std::span<const Piece> pieces) {
  return std::ranges::any_of(pieces, [](const Piece& each) { return on_gpu(each.input); });
}

Buffer Staging::input(ConstBuffer memory) {
  auto* const data = const_cast<std::byte*>(memory.data);  // (nobody writes to what is an input)
  const Buffer there{data, memory.bytes, memory.device};
  if (!on_gpu(memory)) return there;
  inputs_.push_back({there, room_for(memory)});
  return inputs_.back().here;
}

Buffer Staging::output(Buffer memory) {
  if (!on_gpu(memory)) return memory;
  outputs_.push_back({memory, room_for(memory)});
  return outputs_.back().here;
}

Piece Staging::piece(const Piece& piece) {
  const Buffer in = input(piece.input);
  if (piece.input.data != piece.output.data) return {in, output(piece.output)};
  if (on_gpu(piece.output)) outputs_.push_back({piece.output, in});
  return {in, in};
}

cuda::StreamHandle Staging::stream_of(cuda::Device& device) {
  for (const auto& [each, stream] : streams_) {
    if (each == &device) return stream;
  }
  streams_.emplace_back(&device, cuda::stream_for_call(device));
  return streams_.back().second;
}

Buffer Staging::room_for(ConstBuffer memory) {
  auto& device = order_of(memory).device();
  auto& pool = cuda::ScratchPool::of(device, cuda::Memory::Kind::pinned);
  const auto room = std::make_shared<cuda::Scratch>(pool.take(stream_of(device), memory.bytes));
  operation_.keep(room);
  return {room->data(), memory.bytes, {}};
}

Task<> Staging::fetch() {
  if (inputs_.empty() && outputs_.empty()) co_return;
  std::vector<cuda::Order*> orders;
  for (const auto* copies : {&inputs_, &outputs_}) {
    for (const auto& copy : *copies) orders.push_back(&order_of(copy.there));
  }
  const auto begun = std::make_shared<Begun>(std::move(orders));
  co_await begun;
  for (const auto& [there, here] : inputs_) {
    auto& device = order_of(there).device();
    device.copy(stream_of(device), here.data, there.data, there.bytes);
  }
  std::vector<std::unique_ptr<cuda::Event>> events;
  for (const auto& [device, stream] : streams_) {
    events.push_back(std::make_unique<cuda::Event>(*device));
    events.back()->record(stream);
  }
  const auto copied = std::make_shared<Copied>(std::move(events));
  co_await copied;
}

void Staging::store() {
  for (const auto& [there, here] : outputs_) {
    auto& order = order_of(there);
    auto& device = order.device();
    device.copy(stream_of(device), there.data, here.data, there.bytes);
    order.ends_after(stream_of(device));
  }
}

}  // namespace ronde
