#include "collective/nccl_enqueued.h"

#include <algorithm>
#include <string>

#include "collective/staging.h"
#include "cuda/scratch.h"

namespace ronde {
namespace {

bool is_of_host(ConstBuffer memory) { return memory.bytes && !on_gpu(memory); }

}  // namespace

bool may_use_nccl(Lane& lane, const Operation& operation, Collective collective,
                  std::string_view algorithm) {
  return lane.nccl() && operation.joined.ranks == 0 &&
         lane.plans().chosen_freely(collective, algorithm);
}

Enqueued::Enqueued(Lane& lane, Operation& operation, std::span<const Piece> pieces)
    : lane_(lane),
      operation_(operation),
      nccl_(lane.nccl()->shared_from_this()),
      orders_(orders_of(pieces)),
      mixed_(std::ranges::any_of(pieces, [](const Piece& each) {
        return is_of_host(each.input) || is_of_host(each.output);
      })) {}

Task<bool> Enqueued::begin(std::size_t bytes) {
  if (orders_.empty() || mixed_ || !is_on_own_gpu()) co_return false;
  const bool connected = co_await nccl_->connect(lane_, operation_, orders_.front()->device());
  if (!connected) co_return false;
  co_await lane_.begin(operation_);
  co_await nccl_;  // which throws what NCCL has found wrong since the last call
  for (const auto* order : orders_) order->begin_on(stream());
  lane_.takes(operation_, Counter::bytes_over_nccl, bytes);
  operation_.entry.moves("NCCL");
  if (lane_.explains()) lane_.explain(operation_, "over NCCL " + cuda::Nccl::get().version_text());
  co_return true;
}

bool Enqueued::is_on_own_gpu() const {
  return std::ranges::all_of(
      orders_, [&](const auto* order) { return lane_.is_own_gpu(order->device().ordinal()); });
}

std::byte* Enqueued::scratch(std::size_t bytes) {
  auto& pool = cuda::ScratchPool::of(device(), cuda::Memory::Kind::device);
  auto memory =
      std::make_shared<cuda::Scratch>(pool.take(stream(), std::max<std::size_t>(bytes, 1)));
  operation_.keep(memory);
  return memory->data();
}

std::shared_ptr<cuda::Received> Enqueued::receive(std::size_t bytes) {
  received_ = std::make_shared<cuda::Received>(device(), stream(), bytes);
  operation_.keep(received_);
  return received_;
}

void Enqueued::end() {
  for (auto* order : orders_) order->ends_after(stream());
  if (received_) received_->end();
}

}  // namespace ronde
