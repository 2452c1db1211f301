#include "collective/staging.h"

#include <algorithm>
#include <map>
#include <memory>

#include "collective/orders.h"
#include "cuda/scratch.h"

namespace ronde {
namespace {

cuda::Order& order_of(ConstBuffer memory) {
  return *static_cast<cuda::Order*>(memory.device.order);
}

Buffer writable(ConstBuffer memory) {
  return {const_cast<std::byte*>(memory.data), memory.bytes, memory.device};
}

std::vector<cuda::Array> arrays_of(std::span<const Buffer> memory) {
  std::vector<cuda::Array> arrays;
  for (const auto& each : memory) arrays.push_back({each.data, each.bytes});
  return arrays;
}

}  // namespace

bool on_gpu(std::span<const Piece> pieces) {
  return std::ranges::any_of(pieces, [](const Piece& each) { return on_gpu(each.input); });
}

Buffer Staging::input(ConstBuffer memory) {
  const Buffer there = writable(memory);
  if (!on_gpu(memory) || memory.bytes == 0) return there;
  inputs_.push_back(copy_of(order_of(memory).device(), {there}));
  return inputs_.back().here;
}

Buffer Staging::output(Buffer memory) {
  if (!on_gpu(memory)) return memory;
  outputs_.push_back(copy_of(order_of(memory).device(), {memory}));
  return outputs_.back().here;
}

std::vector<Piece> Staging::pieces(std::span<const Piece> pieces) {
  std::vector<Piece> result(pieces.begin(), pieces.end());
  std::map<cuda::Device*, std::vector<std::size_t>> members;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    if (on_gpu(pieces[i].input)) members[&order_of(pieces[i].input).device()].push_back(i);
  }
  for (const auto& [device, indices] : members) {
    std::vector<Buffer> in, out;
    for (const auto i : indices) {
      in.push_back(writable(pieces[i].input));
      if (pieces[i].output.bytes) out.push_back(pieces[i].output);
    }
    inputs_.push_back(copy_of(*device, std::move(in)));
    const Buffer here = inputs_.back().here;
    if (!out.empty()) outputs_.push_back({device, std::move(out), here});
    std::size_t offset = 0;
    for (const auto i : indices) {
      const Buffer part = here.slice(offset, pieces[i].input.bytes);
      result[i] = {part, pieces[i].output.bytes ? part : Buffer{}};
      offset += part.bytes;
    }
  }
  return result;
}

Staging::Copy Staging::copy_of(cuda::Device& device, std::vector<Buffer> there) {
  std::size_t bytes = 0;
  for (const auto& each : there) bytes += each.bytes;
  auto& pool = cuda::ScratchPool::of(device, cuda::Memory::Kind::pinned);
  const auto room = std::make_shared<cuda::Scratch>(pool.take(stream_of(device), bytes));
  operation_.keep(room);
  return {&device, std::move(there), {room->data(), bytes, {}}};
}

cuda::StreamHandle Staging::stream_of(cuda::Device& device) {
  for (const auto& [each, stream] : streams_) {
    if (each == &device) return stream;
  }
  streams_.emplace_back(&device, cuda::stream_for_call(device));
  return streams_.back().second;
}

Task<> Staging::fetch() {
  Orders orders;
  for (const auto* copies : {&inputs_, &outputs_}) {
    for (const auto& copy : *copies) {
      for (const auto& each : copy.there) orders.push_back(&order_of(each));
    }
  }
  if (orders.empty()) co_return;
  const auto begun = until_begun(std::move(orders));
  co_await begun;
  for (const auto& copy : inputs_) fetch(copy);
  std::vector<std::shared_ptr<cuda::Event>> events;
  for (const auto& [device, stream] : streams_) {
    events.push_back(std::make_shared<cuda::Event>(*device));
    events.back()->record(stream);
  }
  const auto copied = std::make_shared<Until>([events] {
    return std::ranges::all_of(events, [](const auto& event) { return event->reached(); });
  });
  co_await copied;
}

void Staging::fetch(const Copy& copy) {
  auto& [device, there, here] = copy;
  const auto stream = stream_of(*device);
  if (there.size() == 1) return device->copy(stream, here.data, there[0].data, here.bytes);
  const auto packed =
      cuda::ScratchPool::of(*device, cuda::Memory::Kind::device).take(stream, here.bytes);
  cuda::pack(*device, stream, arrays_of(there), packed.data());
  device->copy(stream, here.data, packed.data(), here.bytes);
}

void Staging::store() {
  for (const auto& copy : outputs_) store(copy);
}

void Staging::store(const Copy& copy) {
  auto& [device, there, here] = copy;
  const auto stream = stream_of(*device);
  if (there.size() == 1) {
    device->copy(stream, there[0].data, here.data, here.bytes);
  } else {
    const auto packed =
        cuda::ScratchPool::of(*device, cuda::Memory::Kind::device).take(stream, here.bytes);
    device->copy(stream, packed.data(), here.data, here.bytes);
    cuda::unpack(*device, stream, packed.data(), arrays_of(there));
  }
  for (const auto& each : there) order_of(each).ends_after(stream);
}

}  // namespace ronde
