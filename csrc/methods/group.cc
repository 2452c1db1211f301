#include "methods/group.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>

#include "compress/cast.h"
#include "compress/cut.h"
#include "core/error.h"

namespace ronde {
namespace {

/// Those of one type together, in order, up to so many bytes.
template <class TypeOf, class BytesOf>
std::vector<Plan::Indices> buckets_of(const Plan::Indices& members, std::size_t limit,
                                      TypeOf type_of, BytesOf bytes_of) {
  struct Open {
    DType type;
    std::vector<Plan::Indices> buckets;
    std::size_t filled;
  };
  std::vector<Open> all;
  for (const auto i : members) {
    auto open = std::find_if(all.begin(), all.end(),
                             [&](const Open& each) { return each.type == type_of(i); });
    if (open == all.end()) open = all.insert(all.end(), {type_of(i), {{}}, 0});
    if (!open->buckets.back().empty() && open->filled + bytes_of(i) > limit) {
      open->buckets.emplace_back();
      open->filled = 0;
    }
    open->buckets.back().push_back(i);
    open->filled += bytes_of(i);
  }
  std::vector<Plan::Indices> buckets;
  for (auto& each : all) std::ranges::move(each.buckets, std::back_inserter(buckets));
  return buckets;
}

template <class T>
std::span<const T> values_of(ConstBuffer data) {
  return {reinterpret_cast<const T*>(data.data), data.bytes / sizeof(T)};
}

/// Of a floating type; others have no such values.
bool is_finite(ConstBuffer data, DType dtype) {
  const auto within = [](auto values, auto exponent) {
    return std::ranges::none_of(values, [&](auto bits) { return (bits & exponent) == exponent; });
  };
  switch (dtype) {
    case DType::float16:
      return within(values_of<std::uint16_t>(data), std::uint16_t{0x7c00});
    case DType::bfloat16:
      return within(values_of<std::uint16_t>(data), std::uint16_t{0x7f80});
    case DType::float32:
      return all_finite(values_of<float>(data));
    case DType::float64:
      return within(values_of<std::uint64_t>(data), std::uint64_t{0x7ff0000000000000});
    default:
      return true;
  }
}

/// Whether float32 can hold all values, and `growth` times as much.
bool fits(ConstBuffer data, DType dtype, double growth) {
  if (dtype != DType::float64) return true;
  const double limit = static_cast<double>(std::numeric_limits<float>::max()) / growth;
  return std::ranges::all_of(values_of<double>(data),
                             [&](double x) { return std::abs(x) <= limit; });  // no NaN
}

bool must_be_exact(const GroupedCall& group) {
  const auto& plan = *group.plan;
  for (const auto& way : plan.ways) {
    if (way.exact) continue;
    for (const auto i : way.members) {
      if (!fits(group.arrays[i].input, plan.parameters[i].dtype, plan.growth)) return true;
    }
  }
  for (std::size_t i = 0; group.feeds_back && i < group.arrays.size(); ++i) {
    if (!is_finite(group.arrays[i].input, plan.parameters[i].dtype)) return true;
  }
  return false;
}

Cast cast_of(DType dtype) { return Cast(dtype == DType::float16 ? Code::float16 : Code::bfloat16); }

void to_floats(ConstBuffer data, DType dtype, std::span<float> out) {
  if (is_half(dtype))
    cast_of(dtype).decode({data.data, data.bytes}, out, Store::copy);
  else
    std::ranges::transform(values_of<double>(data), out.begin(),
                           [](double x) { return static_cast<float>(x); });
}

/// Each rounded to its type.
void from_floats(std::span<const float> values, DType dtype, Buffer out) {
  if (is_half(dtype))
    cast_of(dtype).encode(values, {}, {}, out.data);
  else
    std::ranges::copy(values, reinterpret_cast<double*>(out.data));
}

Task<> reduce_exactly(Ranks& ranks, const GroupedCall& group, const Plan::Way& way) {
  const auto held = ranks.operation.held();
  for (const auto& bucket : way.exactly) {
    std::vector<Piece> pieces;
    for (const auto i : bucket) pieces.push_back(group.arrays[i]);
    co_await ranks.allreduce(pieces, group.plan->reductions[bucket.front()]);
    ranks.operation.release(held);
  }
}

/// Has the method reduce the arrays as arrays of float32.
Task<> reduce_in_floats(Ranks& ranks, const GroupedCall& group, const Plan::Way& way,
                        Method& method) {
  const auto& plan = *group.plan;
  const auto held = ranks.operation.held();
  std::vector<std::pair<std::size_t, std::span<float>>> others;
  std::vector<Bucket> buckets;
  for (const auto& indices : way.in_floats) {
    Bucket bucket{.arrays = {}, .reduction = plan.in_floats, .averages = plan.averages};
    for (const auto i : indices) {
      const auto& parameter = plan.parameters[i];
      const auto& [input, output] = group.arrays[i];
      if (parameter.dtype == DType::float32) {
        const std::span<float> out(reinterpret_cast<float*>(output.data), parameter.elements);
        bucket.arrays.push_back({&parameter, values_of<float>(input), out});
      } else {
        const auto floats = ranks.room<float>(parameter.elements);
        to_floats(input, parameter.dtype, floats);
        bucket.arrays.push_back({&parameter, floats, floats});
        others.emplace_back(i, floats);
      }
    }
    buckets.push_back(std::move(bucket));
  }
  co_await method.reduce(ranks, buckets);
  for (const auto& [i, floats] : others)
    from_floats(floats, plan.parameters[i].dtype, group.arrays[i].output);
  ranks.operation.release(held);
}

constexpr Reduction kAny{.dtype = DType::uint8, .op = ReduceOp::max};

/// Phase 0 of the whole group; of an empty one, too.
Task<> agree(Ranks& ranks, GroupedCall& group) {
  const auto flags = ranks.room<std::uint8_t>(2);
  flags[0] = ranks.operation.joined.ranks > 0 || must_be_exact(group);
  const std::vector<Piece> pieces{{buffer_of(flags.first(1)), buffer_of(flags.last(1))}};
  co_await ranks.allreduce(pieces, kAny);
  ranks.operation.agreed = true;
  group.exactly = flags[1] != 0;
}

}  // namespace

void Plan::add(std::shared_ptr<Method> method, Indices members, std::size_t fusion_bytes) {
  Way way;
  way.exact = !method;
  way.method = std::move(method);
  way.members = std::move(members);
  way.exactly = buckets_of(
      way.members, fusion_bytes, [&](std::size_t i) { return parameters[i].dtype; },
      [&](std::size_t i) { return parameters[i].bytes(); });
  way.in_floats = buckets_of(
      way.members, fusion_bytes, [](std::size_t) { return DType::float32; },
      [&](std::size_t i) { return parameters[i].elements * sizeof(float); });
  for (const auto& bucket : way.in_floats) {
    way.buckets.emplace_back();
    for (const auto i : bucket) way.buckets.back().push_back(&parameters[i]);
  }
  ways.push_back(std::move(way));
}

std::vector<Outline> Plan::outlines() const {
  std::vector<Outline> all{Outline::allreduce({1}, kAny)};
  for (const auto& way : ways) {
    for (const auto& bucket : way.exactly) {
      std::vector<std::size_t> bytes;
      for (const auto i : bucket) bytes.push_back(parameters[i].bytes());
      all.push_back(Outline::allreduce(std::move(bytes), reductions[bucket.front()]));
    }
  }
  return all;
}

Task<> reduce_group(std::shared_ptr<GroupedCall> group, Routes& routes, Operation& operation) {
  Ranks ranks(group->set, routes, operation);
  co_await agree(ranks, *group);
  const auto& ways = group->plan->ways;
  try {
    for (std::size_t i = 0; i < ways.size(); ++i) {
      if (ways[i].exact || group->exactly) {
        co_await reduce_exactly(ranks, *group, ways[i]);
      } else {
        co_await reduce_in_floats(ranks, *group, ways[i], *group->methods[i]);
      }
    }
  } catch (const Refused& refused) {
    group->error = refused.error;
  }
}

}  // namespace ronde
