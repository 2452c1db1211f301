#include "methods/limits.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <utility>

#include "collective/orders.h"
#include "collective/staging.h"
#include "compress/cut.h"
#include "cuda/finite.h"
#include "cuda/scratch.h"

namespace ronde {
namespace {

/// Of each array the greatest magnitude of a float64, or nothing where values of any kind will do.
std::vector<std::optional<double>> limits_of(const GroupedCall& group) {
  const auto& plan = *group.plan;
  std::vector<std::optional<double>> limits(group.arrays.size());
  for (std::size_t i = 0; i < limits.size(); ++i) {
    if (group.feeds_back && is_floating(plan.parameters[i].dtype))
      limits[i] = std::numeric_limits<double>::max();
  }
  // With room for the result.
  const double most = static_cast<double>(std::numeric_limits<float>::max()) / plan.growth;
  for (const auto& way : plan.ways) {
    if (way.exact) continue;
    for (const auto i : way.members) {
      if (plan.parameters[i].dtype == DType::float64) limits[i] = most;
    }
  }
  return limits;
}

template <class T>
std::span<const T> values_of(ConstBuffer data) {
  return {reinterpret_cast<const T*>(data.data), data.bytes / sizeof(T)};
}

bool within(ConstBuffer data, DType dtype, double limit) {
  const auto finite = [&](std::uint16_t exponent) {
    return std::ranges::none_of(values_of<std::uint16_t>(data), [exponent](std::uint16_t bits) {
      return (bits & exponent) == exponent;
    });
  };
  switch (dtype) {
    case DType::float16:
      return finite(0x7c00);
    case DType::bfloat16:
      return finite(0x7f80);
    case DType::float32:
      return all_finite(values_of<float>(data));
    default:
      return std::ranges::all_of(values_of<double>(data),
                                 [&](double x) { return std::abs(x) <= limit; });  // no NaN
  }
}

/// What a GPU says of its arrays.
struct Answer {
  cuda::Scratch there, here;
  std::unique_ptr<cuda::Event> come;

  bool beyond() const { return *reinterpret_cast<const std::uint32_t*>(here.data()) != 0; }
};

Answer ask(const cuda::Queue& queue, std::span<const cuda::Limited> arrays) {
  const auto& [device, stream] = queue;
  const auto word = [&](cuda::Memory::Kind kind) {
    return cuda::ScratchPool::of(device, kind).take(stream, sizeof(std::uint32_t));
  };
  Answer answer{word(cuda::Memory::Kind::device), word(cuda::Memory::Kind::pinned),
                std::make_unique<cuda::Event>(device)};
  const auto& [there, here, come] = answer;
  device.fill(stream, there.data(), 0, there.size());
  cuda::find_beyond(device, stream, arrays, reinterpret_cast<std::uint32_t*>(there.data()));
  device.copy(stream, here.data(), there.data(), there.size());
  come->record(stream);
  return answer;
}

/// Any of some arrays, which are all on GPUs.
Task<bool> beyond_on_gpus(Ranks& ranks, std::vector<Piece> pieces,
                          std::map<int, std::vector<cuda::Limited>> arrays) {
  const auto begun = until_begun(orders_of(pieces));
  co_await begun;
  const auto answers = std::make_shared<std::vector<Answer>>();
  for (const auto& [number, limited] : arrays)
    answers->push_back(ask(ranks.queue({MemoryKind::cuda, number}), limited));
  const auto answered = std::make_shared<Until>([answers] {
    return std::ranges::all_of(*answers, [](const auto& each) { return each.come->reached(); });
  });
  co_await answered;
  co_return std::ranges::any_of(*answers, &Answer::beyond);
}

}  // namespace

Task<bool> beyond_limits(Ranks& ranks, const GroupedCall& group) {
  const auto limits = limits_of(group);
  std::vector<Piece> on_gpus;
  std::map<int, std::vector<cuda::Limited>> arrays;  // the same, by devices
  for (std::size_t i = 0; i < limits.size(); ++i) {
    if (!limits[i]) continue;
    const auto& input = group.arrays[i].input;
    const auto& [name, shape, dtype, elements] = group.plan->parameters[i];
    if (on_gpu(input)) {
      on_gpus.push_back({input, {}});
      arrays[input.device.number].push_back({input.data, elements, dtype, *limits[i]});
    } else if (!within(input, dtype, *limits[i])) {
      co_return true;
    }
  }
  if (on_gpus.empty()) co_return false;
  const bool beyond = co_await beyond_on_gpus(ranks, on_gpus, arrays);
  co_return beyond;
}

}  // namespace ronde
