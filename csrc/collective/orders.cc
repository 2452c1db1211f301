#include "collective/orders.h"

#include <algorithm>

namespace ronde {

Orders orders_of(std::span<const Piece> pieces) {
  Orders orders;
  const auto add = [&](const Device& device) {
    auto* const order = static_cast<cuda::Order*>(device.order);
    if (device.is_gpu() && std::ranges::find(orders, order) == orders.end())
      orders.push_back(order);
  };
  for (const auto& [input, output] : pieces) {
    add(input.device);
    add(output.device);
  }
  return orders;
}

std::shared_ptr<Until> until_begun(Orders orders) {
  return std::make_shared<Until>([all = std::move(orders)] {
    return std::ranges::all_of(all, [](const auto* order) { return order->begun(); });
  });
}

std::vector<cuda::Array> inputs_of(std::span<const Piece> pieces) {
  std::vector<cuda::Array> arrays;
  for (const auto& [input, output] : pieces)
    arrays.push_back({const_cast<std::byte*>(input.data), input.bytes});
  return arrays;
}

std::vector<cuda::Array> outputs_of(std::span<const Piece> pieces) {
  std::vector<cuda::Array> arrays;
  for (const auto& [input, output] : pieces) arrays.push_back({output.data, output.bytes});
  return arrays;
}

}  // namespace ronde
