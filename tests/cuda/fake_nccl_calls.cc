#include "fake_nccl_calls.h"

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace fake_nccl {
namespace {

struct Type {
  const char* name;
  std::size_t size;
};
constexpr Type kTypes[] = {{"ncclInt8", 1},     {"ncclUint8", 1},      {"ncclInt32", 4},
                           {"ncclUint32", 4},   {"ncclInt64", 8},      {"ncclUint64", 8},
                           {"ncclFloat16", 2},  {"ncclFloat32", 4},    {"ncclFloat64", 8},
                           {"ncclBfloat16", 2}, {"ncclFloat8e4m3", 1}, {"ncclFloat8e5m2", 1}};
constexpr int kTypeCount = 12, kReducedTypes = 10;
constexpr const char* kOps[] = {"ncclSum", "ncclProd", "ncclMax", "ncclMin"};
constexpr int kOpCount = 4;
constexpr const char* kKinds[] = {"ncclSend",          "ncclRecv",      "ncclAllReduce",
                                  "ncclReduceScatter", "ncclAllGather", "ncclBroadcast",
                                  "ncclReduce"};

// Reductions --------------------------------------------------------------------------------------

struct Half {
  _Float16 value;
  float widen() const { return static_cast<float>(value); }
  static Half narrow(float x) { return {static_cast<_Float16>(x)}; }
};

struct BFloat16 {
  std::uint16_t bits;
  float widen() const {
    const std::uint32_t wide = std::uint32_t{bits} << 16;
    float x = 0;
    std::memcpy(&x, &wide, sizeof x);
    return x;
  }
  static BFloat16 narrow(float x) {
    std::uint32_t wide = 0;
    std::memcpy(&wide, &x, sizeof wide);
    if (x != x) return {static_cast<std::uint16_t>(wide >> 16 | 0x40)};
    return {static_cast<std::uint16_t>((wide + 0x7fff + (wide >> 16 & 1)) >> 16)};  // ties to even
  }
};

template <class T>
T reduced(T a, T b, int op) {
  if constexpr (std::is_integral_v<T>) {
    using Wide = std::uint64_t;  // wraps around
    if (op == 0) return static_cast<T>(static_cast<Wide>(a) + static_cast<Wide>(b));
    if (op == 1) return static_cast<T>(static_cast<Wide>(a) * static_cast<Wide>(b));
  } else {
    if (op == 0) return a + b;
    if (op == 1) return a * b;
  }
  return (op == 2 ? a < b : b < a) ? b : a;
}

template <class T>
  requires requires(T x) { x.widen(); }
T reduced(T a, T b, int op) {
  return T::narrow(reduced(a.widen(), b.widen(), op));
}

template <class T>
void add(void* to, const void* from, std::size_t count, int op) {
  auto* const a = static_cast<T*>(to);
  const auto* const b = static_cast<const T*>(from);
  for (std::size_t i = 0; i < count; ++i) a[i] = reduced(a[i], b[i], op);
}

void reduce_into(void* to, const void* from, std::size_t count, const Call& call) {
  using Add = void (*)(void*, const void*, std::size_t, int);
  constexpr Add adds[kReducedTypes] = {add<std::int8_t>,   add<std::uint8_t>, add<std::int32_t>,
                                       add<std::uint32_t>, add<std::int64_t>, add<std::uint64_t>,
                                       add<Half>,          add<float>,        add<double>,
                                       add<BFloat16>};
  adds[call.type](to, from, count, call.op);
}

/// What the collective results in: for all ranks, or one part for each.
std::vector<std::byte> result_of(const std::vector<const Call*>& calls) {
  const Call& first = *calls.front();
  const auto bytes = bytes_of(first);
  const auto begin = [&](std::size_t rank) {
    return static_cast<const std::byte*>(calls[rank]->in);
  };
  if (first.kind == Kind::broadcast) {
    const auto* const from = begin(static_cast<std::size_t>(first.peer));
    return {from, from + bytes};
  }
  if (first.kind == Kind::all_gather) {
    std::vector<std::byte> all;
    for (std::size_t rank = 0; rank < calls.size(); ++rank)
      all.insert(all.end(), begin(rank), begin(rank) + bytes);
    return all;
  }
  const auto parts = first.kind == Kind::reduce_scatter ? calls.size() : 1;
  std::vector<std::byte> sum(begin(0), begin(0) + bytes * parts);
  for (std::size_t rank = 1; rank < calls.size(); ++rank)
    reduce_into(sum.data(), begin(rank), first.count * parts, first);
  return sum;
}

}  // namespace

std::size_t bytes_of(const Call& call) { return call.count * kTypes[call.type].size; }

std::string text_of(const Call& call) {
  std::string text = kKinds[static_cast<int>(call.kind)];
  text.append("(").append(std::to_string(call.count)).append(" ").append(kTypes[call.type].name);
  if (call.reduces()) text += std::string(", ") + kOps[call.op];
  const auto peer = " rank " + std::to_string(call.peer);
  if (call.kind == Kind::send) text += ", to" + peer;
  if (call.kind == Kind::receive) text += ", from" + peer;
  if (call.rooted()) text += ", root" + peer;
  return text + ")";
}

std::string complaint(const Call& call, int size) {
  const std::string name = kKinds[static_cast<int>(call.kind)];
  if (call.type < 0 || call.type >= (call.reduces() ? kReducedTypes : kTypeCount))
    return name + " of type " + std::to_string(call.type);
  if (call.reduces() && (call.op < 0 || call.op >= kOpCount))
    return name + " with the operation " + std::to_string(call.op);
  if (call.peer < 0 || call.peer >= size)
    return name + " with rank " + std::to_string(call.peer) + " of " + std::to_string(size);
  const bool reads = call.kind != Kind::receive, writes = call.kind != Kind::send;
  // (Only the root's buffers matter, and it is not known here which rank that is.)
  if (call.count > 0 && !call.rooted() && ((reads && !call.in) || (writes && !call.out)))
    return name + " without memory";
  return {};
}

void perform(const std::vector<const Call*>& calls) {
  const Call& first = *calls.front();
  if (first.count == 0) return;
  const auto result = result_of(calls);  // before any is written, as in and out may be the same
  for (std::size_t rank = 0; rank < calls.size(); ++rank) {
    if (first.kind == Kind::reduce && static_cast<int>(rank) != first.peer) continue;
    const bool scatters = first.kind == Kind::reduce_scatter;
    const auto bytes = scatters ? bytes_of(first) : result.size();
    std::memcpy(calls[rank]->out, result.data() + (scatters ? rank * bytes : 0), bytes);
  }
}

}  // namespace fake_nccl
