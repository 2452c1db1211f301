#include "methods/group.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>

#include "collective/orders.h"
#include "collective/staging.h"
#include "methods/floats.h"
#include "methods/limits.h"

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

std::vector<Piece> some(std::span<const Piece> arrays, const Plan::Indices& which) {
  std::vector<Piece> pieces;
  for (const auto i : which) pieces.push_back(arrays[i]);
  return pieces;
}

Task<> reduce_exactly(Ranks& ranks, const GroupedCall& group, const Plan::Way& way) {
  const auto held = ranks.operation.held();
  for (const auto& bucket : way.exactly) {
    const auto pieces = some(group.arrays, bucket);
    co_await ranks.allreduce(pieces, group.plan->reductions[bucket.front()]);
    ranks.operation.release(held);
  }
}

/// Has the method reduce the arrays of the way as arrays of float32: `arrays` has them in memory
/// that the method takes, on `where`.
Task<> reduce_in_floats(Ranks& ranks, const Plan& plan, const Plan::Way& way,
                        std::span<const Piece> arrays, Device where, Method& method) {
  std::vector<std::pair<std::size_t, std::span<float>>> others;
  std::vector<Bucket> buckets;
  for (const auto& indices : way.in_floats) {
    Bucket bucket{
        .arrays = {}, .reduction = plan.in_floats, .averages = plan.averages, .device = where};
    for (const auto i : indices) {
      const auto& parameter = plan.parameters[i];
      const auto& [input, output] = arrays[i];
      if (parameter.dtype == DType::float32) {
        const auto* const in = reinterpret_cast<const float*>(input.data);
        auto* const out = reinterpret_cast<float*>(output.data);
        bucket.arrays.push_back({&parameter, {in, parameter.elements}, {out, parameter.elements}});
      } else {
        const auto floats = ranks.room<float>(where, parameter.elements);
        to_floats(ranks, input, parameter.dtype, floats);
        bucket.arrays.push_back({&parameter, floats, floats});
        others.emplace_back(i, floats);
      }
    }
    buckets.push_back(std::move(bucket));
  }
  co_await method.reduce(ranks, buckets);
  for (const auto& [i, floats] : others)
    from_floats(ranks, floats, plan.parameters[i].dtype, arrays[i].output);
}

/// The GPU that holds all arrays of the way, if one does.
std::optional<Device> gpu_of(const GroupedCall& group, const Plan::Way& way) {
  std::optional<Device> found;
  for (const auto i : way.members) {
    for (const ConstBuffer& memory : {group.arrays[i].input, ConstBuffer(group.arrays[i].output)}) {
      if (memory.bytes == 0) continue;
      const auto& [kind, number, order] = memory.device;
      if (!on_gpu(memory) || (found && found->number != number)) return {};
      found = Device{kind, number, nullptr};
    }
  }
  return found;
}

/// The arrays, with copies on the host of those of the way. Those of one type follow one another,
/// so that all are aligned.
std::vector<Piece> staged(Staging& staging, std::vector<Piece> arrays, const Plan::Way& way) {
  for (const auto& bucket : way.exactly) {
    const auto here = staging.pieces(some(arrays, bucket));
    for (std::size_t k = 0; k < here.size(); ++k) arrays[bucket[k]] = here[k];
  }
  return arrays;
}

/// On the GPU that has the arrays, if the method goes there; otherwise on the host.
Task<> reduce_by_method(Ranks& ranks, const GroupedCall& group, const Plan::Way& way,
                        Method& method) {
  const auto held = ranks.operation.held();
  const auto gpu = gpu_of(group, way);
  const bool there = co_await method.reduces_on(ranks, gpu);
  if (there) {
    const auto orders = orders_of(some(group.arrays, way.members));
    const auto begun = until_begun(orders);
    co_await begun;
    co_await reduce_in_floats(ranks, *group.plan, way, group.arrays, *gpu, method);
    for (auto* order : orders) order->ends_after(ranks.queue(*gpu).stream);
  } else {
    Staging staging(ranks.operation);
    const auto arrays = staged(staging, group.arrays, way);
    co_await staging.fetch();
    co_await reduce_in_floats(ranks, *group.plan, way, arrays, Device(), method);
    staging.store();
  }
  ranks.operation.release(held);
}

constexpr Reduction kAny{.dtype = DType::uint8, .op = ReduceOp::max};

/// Phase 0 of the whole group; of an empty one, too.
Task<> agree(Ranks& ranks, GroupedCall& group) {
  const auto flags = ranks.room<std::uint8_t>(2);
  const bool beyond = co_await beyond_limits(ranks, group);
  flags[0] = ranks.operation.joined.ranks > 0 || beyond;
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
        co_await reduce_by_method(ranks, *group, ways[i], *group->methods[i]);
      }
    }
  } catch (const Refused& refused) {
    group->error = refused.error;
  }
}

}  // namespace ronde
