// NCCL: all that it does with elements, against the processor's results.
//
//   nccl_test [--library FILE] [--ranks N] [--missing TEXT]
//
// Ranks are threads. With the fake library (fake_nccl.cc) there are up to 8, on the devices that
// there are. With NVIDIA's there are as many as devices. It takes
// several on one device from 2.30 on, with NCCL_MULTI_RANK_GPU_ENABLE=1: --ranks N asks for them.
// --missing: the library cannot be used, and this is said of it.
#include "cuda/nccl.h"

#include <algorithm>
#include <cstdio>
#include <optional>

#include "kernels/kernels.h"
#include "nccl_ranks.h"

namespace {

using namespace ronde;
using namespace ronde::cuda;
using namespace ronde::cuda::testing;
using Bytes = std::vector<std::byte>;

constexpr DType kReduced[] = {DType::int8,    DType::int32,  DType::int64,   DType::uint8,
                              DType::uint32,  DType::uint64, DType::float16, DType::bfloat16,
                              DType::float32, DType::float64};

// Reductions --------------------------------------------------------------------------------------

void put(DType dtype, std::byte* at, double x) {
  const auto as = [&](auto value) { std::memcpy(at, &value, sizeof value); };
  switch (dtype) {
    case DType::float16:
      return as(static_cast<_Float16>(x));
    case DType::bfloat16:
      return as(
          static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(static_cast<float>(x)) >> 16));
    case DType::float32:
      return as(static_cast<float>(x));
    default:
      return as(x);
  }
}

double get(DType dtype, const std::byte* at) {
  const auto as = [&](auto value) {
    std::memcpy(&value, at, sizeof value);
    return value;
  };
  switch (dtype) {
    case DType::float16:
      return static_cast<double>(as(_Float16{}));
    case DType::bfloat16:
      return static_cast<double>(
          std::bit_cast<float>(static_cast<std::uint32_t>(as(std::uint16_t{})) << 16));
    case DType::float32:
      return static_cast<double>(as(float{}));
    default:
      return as(double{});
  }
}

/// What is rounded to the nearest is wrong by so much of itself at most.
double rounding(DType dtype) {
  return std::exp2(dtype == DType::bfloat16  ? -8
                   : dtype == DType::float16 ? -11
                   : dtype == DType::float32 ? -24
                                             : -53);
}

struct Case {
  Reduction reduction;
  std::size_t count = 0;  // of each rank's result
  bool exact = true;      // no operation on these values rounds
};

/// The same on all ranks.
struct Inputs {
  Inputs(const Case& c, int ranks, std::size_t elements, std::uint64_t seed) {
    std::mt19937_64 random(seed);
    const auto [dtype, op] = std::pair(c.reduction.dtype, c.reduction.op);
    const double exact_factors[] = {1, -1, 2, 0.5};
    for (int r = 0; r < ranks; ++r) {
      Bytes all(elements * size_of(dtype));
      for (auto& byte : all) byte = static_cast<std::byte>(random());
      for (std::size_t i = 0; is_floating(dtype) && i < elements; ++i) {
        const double small = static_cast<double>(random() % 9) - 4;
        const double any = 0.5 + static_cast<double>(random() % 1000) / 1000;
        const double x = !c.exact                  ? (random() % 2 ? any : -any)
                         : op == ReduceOp::product ? exact_factors[random() % 4]
                                                   : small;
        put(dtype, &all[i * size_of(dtype)], x);
      }
      of.push_back(std::move(all));
    }
  }

  std::vector<Bytes> of;
};

/// Whether it is what the inputs reduce to, from this element on.
bool reduces_to(const Case& c, const Inputs& inputs, std::size_t first, const Bytes& result) {
  const auto size = size_of(c.reduction.dtype);
  if (result.size() != c.count * size) return false;
  if (c.exact) {
    std::vector<Bytes> parts;
    for (const auto& input : inputs.of)
      parts.emplace_back(&input[first * size], &input[first * size] + result.size());
    std::vector<const void*> ins;
    for (const auto& part : parts) ins.push_back(part.data());
    Bytes expected(result.size());
    void* out = expected.data();
    reduce_many(c.reduction, {&out, 1}, ins, c.count, false);
    return result == expected;
  }
  const double ranks = static_cast<double>(inputs.of.size());
  for (std::size_t i = 0; i < c.count; ++i) {
    std::vector<double> values;
    for (const auto& input : inputs.of)
      values.push_back(get(c.reduction.dtype, &input[(first + i) * size]));
    double expected = values[0], magnitude = std::abs(values[0]);
    for (std::size_t r = 1; r < values.size(); ++r) {
      const double x = values[r];
      switch (c.reduction.op) {
        case ReduceOp::sum:
          expected += x;
          break;
        case ReduceOp::product:
          expected *= x;
          break;
        case ReduceOp::min:
          expected = std::min(expected, x);
          break;
        case ReduceOp::max:
          expected = std::max(expected, x);
      }
      magnitude = c.reduction.op == ReduceOp::sum ? magnitude + std::abs(x) : std::abs(expected);
    }
    const bool rounds = c.reduction.op == ReduceOp::sum || c.reduction.op == ReduceOp::product;
    const double most = rounds ? 1.1 * (ranks - 1) * rounding(c.reduction.dtype) * magnitude : 0;
    if (!(std::abs(get(c.reduction.dtype, &result[i * size]) - expected) <= most)) return false;
  }
  return true;
}

void all_reduce(Rank& rank, const Case& c, const Inputs& inputs, bool in_place) {
  const auto& mine = inputs.of[static_cast<std::size_t>(rank.nccl.rank())];
  const OnDevice in(rank.device, rank.stream, mine);
  const OnDevice fresh(rank.device, rank.stream, mine.size());
  const auto& out = in_place ? in : fresh;
  rank.nccl.all_reduce(rank.stream, {in.data(), out.data(), c.count, c.reduction.dtype},
                       c.reduction.op);
  rank.finish();
  CHECK(reduces_to(c, inputs, 0, out.bytes()));
  CHECK(in_place || in.bytes() == mine);
}

void reduce(Rank& rank, const Case& c, const Inputs& inputs, bool in_place, int root) {
  const auto& mine = inputs.of[static_cast<std::size_t>(rank.nccl.rank())];
  const OnDevice in(rank.device, rank.stream, mine);
  const OnDevice fresh(rank.device, rank.stream, mine.size());
  const auto before = fresh.bytes();
  const auto& out = in_place ? in : fresh;
  rank.nccl.reduce(rank.stream, {in.data(), out.data(), c.count, c.reduction.dtype}, c.reduction.op,
                   root);
  rank.finish();
  if (rank.nccl.rank() == root) CHECK(reduces_to(c, inputs, 0, out.bytes()));
  if (rank.nccl.rank() != root) CHECK(fresh.bytes() == before);
  CHECK((in_place && rank.nccl.rank() == root) || in.bytes() == mine);
}

void reduce_scatter(Rank& rank, const Case& c, const Inputs& inputs, bool in_place) {
  const auto number = static_cast<std::size_t>(rank.nccl.rank());
  const auto bytes = c.count * size_of(c.reduction.dtype);
  const OnDevice in(rank.device, rank.stream, inputs.of[number]);
  const OnDevice fresh(rank.device, rank.stream, bytes);
  auto* const out = in_place ? in.data() + number * bytes : fresh.data();
  rank.nccl.reduce_scatter(rank.stream, {in.data(), out, c.count, c.reduction.dtype},
                           c.reduction.op);
  rank.finish();
  const auto all = in.bytes();
  const auto part = all.begin() + static_cast<std::ptrdiff_t>(number * bytes);
  const Bytes result =
      in_place ? Bytes(part, part + static_cast<std::ptrdiff_t>(bytes)) : fresh.bytes();
  CHECK(reduces_to(c, inputs, number * c.count, result));
  CHECK(in_place || all == inputs.of[number]);
}

void check_reductions(Rank& rank) {
  const int size = rank.nccl.size();
  std::mt19937_64 random(seed());  // the same on all ranks
  for (const auto dtype : kReduced) {
    for (int o = 0; o < kReduceOpCount; ++o) {
      const std::size_t counts[] = {1, 7, 100, 1025};
      const Case c{{.dtype = dtype, .op = static_cast<ReduceOp>(o)},
                   counts[random() % 4],
                   !is_floating(dtype) || random() % 2 == 0};
      const Inputs inputs(c, size, c.count, random());
      const auto choices = random() + 7 * static_cast<unsigned>(rank.nccl.rank());
      all_reduce(rank, c, inputs, choices % 2);
      reduce(rank, c, inputs, choices / 2 % 2,
             static_cast<int>(random() % static_cast<unsigned>(size)));
      const Inputs long_inputs(c, size, c.count * static_cast<std::size_t>(size), random());
      reduce_scatter(rank, c, long_inputs, choices / 4 % 2);
    }
  }
}

// Movements ---------------------------------------------------------------------------------------

Bytes message(int from, int to, std::size_t bytes) {
  std::mt19937_64 random(seed() + 1000u * static_cast<unsigned>(from) + static_cast<unsigned>(to));
  Bytes all(bytes);
  for (auto& byte : all) byte = static_cast<std::byte>(random());
  return all;
}

void check_gathers(Rank& rank) {
  const int size = rank.nccl.size();
  for (int d = 0; d < kDTypeCount; ++d) {  // also those that it cannot reduce
    const auto dtype = static_cast<DType>(d);
    const std::size_t count = 1 + 37 * static_cast<std::size_t>(d), bytes = count * size_of(dtype);
    const auto mine = message(rank.nccl.rank(), d, bytes);
    const auto behind = bytes * static_cast<std::size_t>(rank.nccl.rank());
    const OnDevice in(rank.device, rank.stream, mine);
    const OnDevice out(rank.device, rank.stream, bytes * static_cast<std::size_t>(size));
    const bool in_place = (d + rank.nccl.rank()) % 2;
    if (in_place) rank.device.copy(rank.stream, out.data() + behind, in.data(), bytes);
    rank.nccl.all_gather(rank.stream,
                         {in_place ? out.data() + behind : in.data(), out.data(), count, dtype});
    rank.finish();
    Bytes expected;
    for (int r = 0; r < size; ++r) {
      const auto part = message(r, d, bytes);
      expected.insert(expected.end(), part.begin(), part.end());
    }
    CHECK(out.bytes() == expected);

    const int root = d % size;
    rank.nccl.broadcast(rank.stream, {in.data(), in_place ? in.data() : out.data(), count, dtype},
                        root);
    rank.finish();
    const auto sent = message(root, d, bytes);
    const auto got = in_place ? in.bytes() : out.bytes();
    CHECK(std::equal(sent.begin(), sent.end(), got.begin()));
  }
}

/// In one group: to the next, from the one before, of which with few ranks one may be the other, or
/// this rank itself.
void check_ring(Rank& rank) {
  const int size = rank.nccl.size(), r = rank.nccl.rank();
  const int next = (r + 1) % size, last = (r + size - 1) % size;
  for (const std::size_t bytes : {1, 100, 4097}) {
    const OnDevice from(rank.device, rank.stream, message(r, next, bytes));
    const OnDevice to(rank.device, rank.stream, bytes);
    NcclGroup group;
    rank.nccl.send(rank.stream, from.data(), bytes, next);
    rank.nccl.receive(rank.stream, to.data(), bytes, last);
    group.end();
    rank.finish();
    CHECK(to.bytes() == message(last, r, bytes));
  }
}

/// Of different lengths, on two streams, with a collective before and after it.
void check_all_to_all(Rank& rank) {
  const int size = rank.nccl.size(), r = rank.nccl.rank();
  const auto length = [](int from, int to) {
    return static_cast<std::size_t>(1 + (7 * from + 13 * to) % 50);
  };
  const Stream other(rank.device);
  const float one = 1;
  Bytes ones(sizeof one);
  std::memcpy(ones.data(), &one, sizeof one);
  const OnDevice sum(rank.device, rank.stream, ones);
  std::vector<std::unique_ptr<OnDevice>> from, to;
  for (int peer = 0; peer < size; ++peer) {
    from.push_back(
        std::make_unique<OnDevice>(rank.device, rank.stream, message(r, peer, length(r, peer))));
    to.push_back(std::make_unique<OnDevice>(rank.device, other, length(peer, r)));
  }
  const NcclBuffers sums{sum.data(), sum.data(), 1, DType::float32};
  rank.nccl.all_reduce(rank.stream, sums, ReduceOp::sum);
  rank.settle();
  NcclGroup group;
  for (int step = 0; step < size; ++step) {
    const int peer = (r + step) % size;
    rank.nccl.receive(other, to[static_cast<std::size_t>(peer)]->data(), length(peer, r), peer);
    rank.nccl.send(rank.stream, from[static_cast<std::size_t>(peer)]->data(), length(r, peer),
                   peer);
  }
  group.end();
  rank.settle();
  rank.nccl.all_reduce(rank.stream, sums, ReduceOp::sum);
  rank.finish();
  other.synchronise();
  for (int peer = 0; peer < size; ++peer)
    CHECK(to[static_cast<std::size_t>(peer)]->bytes() == message(peer, r, length(peer, r)));
  CHECK(get(DType::float32, sum.bytes().data()) == size * size);
}

/// Events order what is called with what comes before and after on other streams.
void check_order(Rank& rank) {
  const int size = rank.nccl.size();
  const Stream before(rank.device), after(rank.device);
  Event given(rank.device), done(rank.device);
  const std::size_t count = 1000;
  const Memory in(rank.device, Memory::Kind::device, count),
      out(rank.device, Memory::Kind::device, count);
  const Memory result(rank.device, Memory::Kind::device, count);
  for (unsigned char value = 1; value < 10; ++value) {
    rank.device.fill(before, in.data(), value, count);
    given.record(before);
    given.order_before(rank.stream);
    rank.nccl.all_reduce(rank.stream, {in.data(), out.data(), count, DType::uint8}, ReduceOp::sum);
    rank.settle();
    done.record(rank.stream);
    done.order_before(after);
    done.order_before(before);
    rank.device.copy(after, result.data(), out.data(), count);
    Bytes bytes(count);
    rank.device.copy(after, bytes.data(), result.data(), count);
    after.synchronise();
    CHECK(bytes == Bytes(count, static_cast<std::byte>(value * size)));
  }
}

/// On two streams in turn, which nothing orders but the communicator.
void check_streams(Rank& rank) {
  const Stream other(rank.device);
  const std::size_t count = 100;
  const OnDevice a(rank.device, rank.stream, Bytes(count, std::byte{1}));
  const OnDevice b(rank.device, other, message(rank.nccl.rank(), 0, count));
  for (int i = 0; i < 10; ++i) {
    rank.nccl.all_reduce(rank.stream, {a.data(), a.data(), count, DType::uint8}, ReduceOp::max);
    rank.settle();
    rank.nccl.broadcast(other, {b.data(), b.data(), count, DType::uint8}, i % rank.nccl.size());
    rank.settle();
  }
  rank.finish();
  other.synchronise();
  CHECK(a.bytes() == Bytes(count, std::byte{1}));
  CHECK(b.bytes() == message(0, 0, count));
}

/// Two communicators of the same ranks, in other orders, each with work on its stream at once.
void check_several(int size) {
  const auto first = Nccl::get().unique_id(), second = Nccl::get().unique_id();
  in_parallel(size, [&](int r) {
    Rank one(first, size, r), other(second, size, size - 1 - r);
    one.settle();
    other.settle();
    constexpr std::size_t kCount = 100;
    const OnDevice a(one.device, one.stream, message(0, 0, kCount));
    const OnDevice b(other.device, other.stream, message(size - 1 - r, 0, kCount));
    for (int i = 0; i < 10; ++i) {
      one.nccl.all_reduce(one.stream, {a.data(), a.data(), kCount, DType::uint8}, ReduceOp::max);
      other.nccl.broadcast(other.stream, {b.data(), b.data(), kCount, DType::uint8}, i % size);
      one.settle();
      other.settle();
    }
    one.finish();
    other.finish();
    CHECK(a.bytes() == message(0, 0, kCount));
    CHECK(b.bytes() == message(0, 0, kCount));
  });
}

/// What was called is done before the end, though others come late to it.
void check_end(int size) {
  const auto id = Nccl::get().unique_id();
  in_parallel(size, [&](int r) {
    const Device& device = device_of(r);
    const Stream stream(device);
    const OnDevice memory(device, stream, Bytes(100, std::byte{1}));
    {
      NcclCommunicator nccl(device, id, size, r);
      while (!nccl.ready()) nap();
      for (int i = 0; i < 5 * r; ++i) nap();
      nccl.all_reduce(stream, {memory.data(), memory.data(), 100, DType::uint8}, ReduceOp::sum);
    }
    stream.synchronise();
    CHECK(memory.bytes() == Bytes(100, static_cast<std::byte>(size)));
  });
}

void check_types() {
  for (int d = 0; d < kDTypeCount; ++d) {
    const auto dtype = static_cast<DType>(d);
    const bool known =
        std::find(std::begin(kReduced), std::end(kReduced), dtype) != std::end(kReduced);
    const auto error = thrown_by([&] { nccl_type(dtype); });
    CHECK(error.empty() == known);
    CHECK(known || contains(error, name_of(dtype)));
  }
}

void check_missing(const std::string& text) {
  CHECK(contains(Nccl::missing(), text));
  CHECK(contains(thrown_by([] { Nccl::get(); }), text));
  std::printf("%s\n", Nccl::missing().c_str());
}

}  // namespace

int main(int argc, char** argv) {
  std::optional<std::string> missing;
  int wanted = 0;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i];
    if (name == "--library") Nccl::look_in(argv[i + 1]);
    if (name == "--missing") missing = argv[i + 1];
    if (name == "--ranks") wanted = std::atoi(argv[i + 1]);
  }
  if (wanted > 0) setenv("NCCL_MULTI_RANK_GPU_ENABLE", "1", 0);
  if (missing) return check_missing(*missing), 0;
  if (!Nccl::missing().empty()) {
    std::printf("nothing to try: %s\n", Nccl::missing().c_str());
    return 0;
  }
  const auto& nccl = Nccl::get();
  CHECK(!thrown_by([] { Nccl::look_in("elsewhere"); }).empty());
  const int most = wanted > 0 ? wanted : is_fake() ? 8 : Driver::get().devices();
  check_types();
  for (const int size : {1, 2, 4, 8}) {
    if (size > most) break;
    with_ranks(size, [&](Rank& rank) {
      check_reductions(rank);
      check_gathers(rank);
      check_ring(rank);
      check_all_to_all(rank);
      check_order(rank);
      check_streams(rank);
    });
    check_several(size);
    if (nccl.CommFinalize && size <= 2) check_end(size);
    std::printf("NCCL %d, %d ranks\n", nccl.version(), size);
  }
}
