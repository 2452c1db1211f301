// Collectives of arrays on GPUs over NCCL, against those of the host. Ranks are threads, with a GPU
// each, or sharing one where NCCL lets them.
#include "collective/nccl_route.h"

#include <unistd.h>

#include <cmath>
#include <cstdio>

#include "nccl_job.h"

namespace {

using namespace ronde;
using namespace ronde::cuda;
using namespace ronde::cuda::testing;

using Bytes = std::vector<std::byte>;

bool lacks(DType dtype) {
  return dtype == DType::boolean || dtype == DType::int16 || dtype == DType::uint16;
}
bool orders(ReduceOp op) { return op == ReduceOp::min || op == ReduceOp::max; }

Buffer on_host(Bytes& bytes) { return {bytes.data(), bytes.size(), {}}; }

double value_of(DType dtype, const std::byte* at) {
  const auto read = [&](auto value) {
    std::memcpy(&value, at, sizeof value);
    return value;
  };
  switch (dtype) {
    case DType::float16:
      return static_cast<double>(read(_Float16{}));
    case DType::bfloat16:
      return std::bit_cast<float>(std::uint32_t{read(std::uint16_t{})} << 16);
    case DType::float32:
      return static_cast<double>(read(float{}));
    default:
      return read(double{});
  }
}

double epsilon(DType dtype) {
  if (dtype == DType::float16) return 0x1p-10;
  if (dtype == DType::bfloat16) return 0x1p-7;
  return dtype == DType::float32 ? 0x1p-23 : 0x1p-52;
}

Bytes moderate(DType dtype, std::size_t count, std::mt19937_64& random, double scale = 1) {
  if (!is_floating(dtype)) return elements(dtype, count, random);
  Bytes all(count * size_of(dtype));
  std::uniform_real_distribution<double> draw(0.5, 1.5);
  for (std::size_t i = 0; i < count; ++i) {
    const double value = draw(random) * scale * (random() % 2 ? 1 : -1);
    auto* const at = all.data() + i * size_of(dtype);
    const auto write = [&](auto x) { std::memcpy(at, &x, sizeof x); };
    const auto narrow = static_cast<float>(value);
    if (dtype == DType::float64) write(value);
    if (dtype == DType::float32) write(narrow);
    if (dtype == DType::float16) write(static_cast<_Float16>(value));
    if (dtype == DType::bfloat16)
      write(static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(narrow) >> 16));
  }
  return all;
}

/// What all ranks have contributed, and what each has got.
struct Table {
  explicit Table(int size) : in(static_cast<std::size_t>(size)), out(in.size()), all(size) {}
  std::vector<Bytes> in, out;
  std::barrier<> all;
};

/// How far a result of NCCL may be from that of the host: both are within half of it.
double bound(const Table& table, const Reduction& reduction, std::size_t at) {
  const auto ranks = static_cast<double>(table.in.size());
  double sum = 0, product = 1;
  for (const auto& each : table.in) {
    const double value =
        std::fabs(value_of(reduction.dtype, each.data() + at) * reduction.prescale);
    sum += value;
    product *= value;
  }
  const double size = reduction.op == ReduceOp::product ? product : sum;
  const double least = reduction.dtype == DType::float16 ? 0x1p-24 * ranks : 0;
  return 2 * (ranks + 3) * epsilon(reduction.dtype) * size * std::fabs(reduction.postscale) /
             reduction.divisor +
         least;
}

/// Integers have the same bits, floats are near, and none is NaN or infinite where the other is
/// not.
void compare(const Table& table, const Reduction& reduction, const Bytes& device, const Bytes& host,
             std::size_t offset = 0) {
  CHECK(device.size() == host.size());
  if (!is_floating(reduction.dtype)) {
    CHECK(device == host);
    return;
  }
  const auto item = size_of(reduction.dtype);
  for (std::size_t i = 0; i < device.size(); i += item) {
    const double a = value_of(reduction.dtype, &device[i]), b = value_of(reduction.dtype, &host[i]);
    CHECK(std::isfinite(a) && std::isfinite(b));
    CHECK(std::fabs(a - b) <= bound(table, reduction, offset + i));
  }
}

// Reductions --------------------------------------------------------------------------------------

/// As the host does it.
void on_host(Member& me, const Reduction& reduction, const Bytes& in, Bytes& out) {
  Bytes copy = in;
  out.resize(in.size());
  const Piece piece{on_host(copy), on_host(out)};
  me.set->run(named("reference"), Collective::allreduce, {}, [&](Route& route, Operation& op) {
    return route.allreduce(op, {&piece, 1}, reduction, {});
  });
}

enum class Way { in_place, apart, pieces };
constexpr Way kWays[] = {Way::in_place, Way::apart, Way::pieces};

/// Returns whether it went over NCCL. If not, nothing was written.
bool allreduced(Member& me, Table& table, const Reduction& reduction, Way way) {
  const auto& mine = table.in[static_cast<std::size_t>(me.rank)];
  auto& result = table.out[static_cast<std::size_t>(me.rank)];
  const std::size_t item = size_of(reduction.dtype);
  std::vector<std::size_t> lengths{mine.size()};
  if (way == Way::pieces) {
    const auto third = mine.size() / item / 3 * item;
    lengths = {third, 0, third, mine.size() - 2 * third};
  }
  std::vector<std::unique_ptr<Array>> ins, outs;
  std::vector<Piece> pieces;
  std::size_t at = 0;
  for (const auto length : lengths) {
    const auto part = std::span(mine).subspan(at, length);
    ins.push_back(std::make_unique<Array>(me.device, part));
    if (way == Way::in_place) {
      pieces.push_back({ins.back()->buffer(), ins.back()->buffer()});
    } else {
      outs.push_back(std::make_unique<Array>(me.device, Bytes(length, std::byte{0x5a})));
      pieces.push_back({ins.back()->buffer(), outs.back()->buffer()});
    }
    at += length;
  }
  const bool done = allreduce(*me.set, named("allreduce"), pieces, reduction);
  result.clear();
  for (const auto& each : way == Way::in_place ? ins : outs) {
    const auto bytes = each->bytes();
    result.insert(result.end(), bytes.begin(), bytes.end());
  }
  if (way == Way::in_place) return done;
  at = 0;
  for (std::size_t i = 0; i < lengths.size(); at += lengths[i++]) {
    const auto part = std::span(mine).subspan(at, lengths[i]);
    CHECK(std::ranges::equal(ins[i]->bytes(), part));
  }
  return done;
}

void check_allreduce(Member& me, Table& table, const Reduction& reduction, std::size_t count,
                     Way way, double scale = 1) {
  const auto rank = static_cast<std::size_t>(me.rank);
  std::mt19937_64 random(seed() + 100 * rank + count);
  table.in[rank] = moderate(reduction.dtype, count, random, scale);
  table.all.arrive_and_wait();
  const bool done = allreduced(me, table, reduction, way);
  const bool floats = is_floating(reduction.dtype);
  CHECK(done == (!lacks(reduction.dtype) && !(floats && orders(reduction.op))));
  if (done) {
    Bytes expected;
    on_host(me, reduction, table.in[rank], expected);
    compare(table, reduction, table.out[rank], expected);
  } else {
    const Bytes untouched(table.in[rank].size(), std::byte{0x5a});
    CHECK(table.out[rank] == (way == Way::in_place ? table.in[rank] : untouched));
  }
  table.all.arrive_and_wait();
  if (done) CHECK(table.out[rank] == table.out[0]);
  table.all.arrive_and_wait();
}

void check_allreduces(Member& me, Table& table) {
  for (int d = 0; d < kDTypeCount; ++d) {
    for (int o = 0; o < kReduceOpCount; ++o) {
      const Reduction reduction{.dtype = static_cast<DType>(d), .op = static_cast<ReduceOp>(o)};
      check_allreduce(me, table, reduction, 100, kWays[(d + o) % 3]);
    }
  }
  for (const std::size_t count : {0, 1, 7, 5000})
    for (const auto way : kWays) check_allreduce(me, table, {}, count, way);
}

void check_factors(Member& me, Table& table) {
  const double ranks = me.size;
  for (const auto dtype : {DType::float16, DType::bfloat16, DType::float32, DType::float64}) {
    for (const auto way : kWays) {
      check_allreduce(me, table, {.dtype = dtype, .divisor = ranks}, 333, way);
      check_allreduce(me, table, {.dtype = dtype, .prescale = 0.25, .postscale = 3}, 333, way);
    }
    const Reduction all{.dtype = dtype, .prescale = 0.3, .divisor = ranks, .postscale = -2};
    check_allreduce(me, table, all, 333, Way::pieces);
  }
  // The sum does not fit the type, but the average does; nor does the sum of what is not scaled.
  const Reduction average{.dtype = DType::float16, .divisor = ranks};
  check_allreduce(me, table, average, 333, Way::apart, 40000);
  const Reduction scaled{.dtype = DType::float16, .prescale = 1 / ranks};
  check_allreduce(me, table, scaled, 333, Way::apart, 40000);
  const Reduction wide{.dtype = DType::bfloat16, .divisor = ranks};
  check_allreduce(me, table, wide, 333, Way::in_place, 2e38);
}

/// Even and uneven chunks, some of them empty.
void check_reduce_scatter(Member& me, Table& table) {
  const auto rank = static_cast<std::size_t>(me.rank);
  const auto ranks = static_cast<std::size_t>(me.size);
  const std::vector<Reduction> reductions{
      {},
      {.dtype = DType::float16, .divisor = static_cast<double>(me.size)},
      {.dtype = DType::int32, .op = ReduceOp::max},
      {.dtype = DType::float64, .prescale = 0.5, .postscale = 5}};
  for (const auto& reduction : reductions) {
    for (const std::size_t count : {30 * ranks, 30 * ranks + 1, ranks - 1}) {
      const auto chunks = Chunks::even(count, me.size);
      const std::size_t item = size_of(reduction.dtype);
      std::mt19937_64 random(seed() + 100 * rank + count);
      table.in[rank] = moderate(reduction.dtype, count, random);
      table.all.arrive_and_wait();
      Array in(me.device, table.in[rank]);
      const auto mine = chunks[me.rank];
      Array out(me.device, Bytes(mine.count * item));
      CHECK(reduce_scatter(*me.set, named("reduce_scatter"), in.buffer(), out.buffer(), chunks,
                           reduction));
      Bytes expected;
      on_host(me, reduction, table.in[rank], expected);
      const auto* const begin = expected.data() + mine.offset * item;
      compare(table, reduction, out.bytes(), {begin, begin + mine.count * item},
              mine.offset * item);
      CHECK(in.bytes() == table.in[rank]);
      table.all.arrive_and_wait();
    }
  }
}

void check_reduce(Member& me, Table& table) {
  const auto rank = static_cast<std::size_t>(me.rank);
  const std::vector<Reduction> reductions{
      {},
      {.dtype = DType::bfloat16, .divisor = static_cast<double>(me.size)},
      {.dtype = DType::uint8, .op = ReduceOp::min},
      {.dtype = DType::float32, .prescale = 0.5, .postscale = 5}};
  for (const auto& reduction : reductions) {
    for (int root = 0; root < me.size; ++root) {
      std::mt19937_64 random(seed() + 100 * rank);
      table.in[rank] = moderate(reduction.dtype, 100, random);
      table.all.arrive_and_wait();
      Array in(me.device, table.in[rank]);
      Array out(me.device, Bytes(table.in[rank].size(), std::byte{0x5a}));
      // Others than the root have no output, or one that is not touched.
      const bool has_output = me.rank == root || root % 2;
      const Piece piece{in.buffer(), has_output ? out.buffer() : Buffer{}};
      CHECK(reduce(*me.set, named("reduce"), piece, root, reduction));
      Bytes expected;
      on_host(me, reduction, table.in[rank], expected);
      if (me.rank == root)
        compare(table, reduction, out.bytes(), expected);
      else
        CHECK(out.bytes() == Bytes(expected.size(), std::byte{0x5a}));
      CHECK(in.bytes() == table.in[rank]);
      table.all.arrive_and_wait();
    }
  }
}

void check_broadcast(Member& me) {
  for (const std::size_t bytes : {1, 3, 1000}) {
    for (int root = 0; root < me.size; ++root) {
      Array array(me.device, Bytes(bytes, static_cast<std::byte>(me.rank)));
      CHECK(broadcast(*me.set, named("broadcast"), array.buffer(), root));
      CHECK(array.bytes() == Bytes(bytes, static_cast<std::byte>(root)));
    }
  }
}

// Order -------------------------------------------------------------------------------------------

/// What the caller's stream writes before is read, and what it does afterwards comes later, though
/// nobody waits for it.
void check_order(Member& me) {
  Array array(me.device, Bytes(20000));
  for (unsigned char value = 1; value < 20; ++value) {
    me.device.fill(array.stream(), array.buffer().data, value, 20000);
    const auto buffer = array.buffer();
    const Piece piece{buffer, buffer};
    CHECK(allreduce(*me.set, named("allreduce"), {&piece, 1}, {.dtype = DType::uint8}));
    CHECK(array.bytes() == Bytes(20000, static_cast<std::byte>(value * me.size)));
  }
}

}  // namespace

int main() {
  setenv("FAKE_CUDA_DEVICES", "8", 1);
  setenv("NCCL_MULTI_RANK_GPU_ENABLE", "1", 0);
  if (!Nccl::missing().empty() || !Driver::missing().empty()) {
    std::printf("nothing to try: %s %s\n", Nccl::missing().c_str(), Driver::missing().c_str());
    return 0;
  }
  alarm(300);  // rather than hang
  for (const int size : {2, 4, 8}) {
    if (size > Driver::get().devices() && !Nccl::get().shares_gpus()) break;
    Table table(size);
    Job{}.run(size, [&](Member& me) {
      check_allreduces(me, table);
      check_factors(me, table);
      check_reduce_scatter(me, table);
      check_reduce(me, table);
      check_broadcast(me);
      check_order(me);
    });
  }
}
