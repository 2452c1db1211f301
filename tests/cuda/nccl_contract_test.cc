// What collectives of arrays on GPUs have to hold to, whatever happens: calls that do not belong
// together, ranks that go or share a GPU, several lanes at once. With the fake library
// (fake_nccl.cc) alone.
#include <unistd.h>

#include <array>
#include <cstdio>

#include "core/error.h"
#include "engine/engine.h"
#include "nccl_job.h"

namespace {

using namespace ronde;
using namespace ronde::cuda;
using namespace ronde::cuda::testing;

constexpr std::size_t kBytes = 1000;
constexpr Reduction kSum{.dtype = DType::uint8};

std::vector<std::byte> filled(int value) {
  return std::vector<std::byte>(kBytes, static_cast<std::byte>(value));
}

/// By the route that a call takes.
void allreduce_by_route(Communicator& set, const Call& call, const Piece& piece,
                        const Reduction& reduction) {
  set.run(call, Collective::allreduce, {}, [&](Route& route, Operation& operation) {
    return route.allreduce(operation, {&piece, 1}, reduction, {});
  });
}

void add_up(Member& me) {
  auto array = me.array(filled(me.rank + 1));
  const Piece piece{array.buffer(), array.buffer()};
  CHECK(allreduce(*me.set, named("allreduce"), {&piece, 1}, kSum));
  CHECK(array.bytes() == filled(me.size * (me.size + 1) / 2));
}

// Routes ------------------------------------------------------------------------------------------

void check_explained() {
  Said said;
  Job{.said = &said}.run(2, add_up);
  CHECK(said.has("allreduce: over NCCL 2."));
}

/// Ranks of one GPU find that out together.
void check_one_gpu() {
  Said said;
  Job{.one_gpu = true, .said = &said}.run(4, [](Member& me) {
    for (int i = 0; i < 2; ++i) {
      auto array = me.array(filled(me.rank));
      const Piece piece{array.buffer(), array.buffer()};
      CHECK(!allreduce(*me.set, named("allreduce"), {&piece, 1}, kSum));
      CHECK(array.bytes() == filled(me.rank));
      allreduce_by_route(*me.set, named("allreduce"), piece, kSum);
      CHECK(array.bytes() == filled(6));
    }
  });
  CHECK(said.has("ranks 0 and 1 use the same GPU"));
  CHECK(!said.has("over NCCL 2."));
}

/// What NCCL does not do goes the way of other arrays.
void check_others() {
  Job{}.run(3, [](Member& me) {
    auto array = me.array(filled(me.rank == 1));
    const Piece piece{array.buffer(), array.buffer()};
    allreduce_by_route(*me.set, named("allreduce"), piece, {.dtype = DType::boolean});
    CHECK(array.bytes() == filled(1));
  });
  auto settings = quick();
  settings.deterministic = true;
  Job{.settings = settings}.run(2, [](Member& me) {
    auto array = me.array(filled(1));
    const Piece piece{array.buffer(), array.buffer()};
    CHECK(!allreduce(*me.set, named("allreduce"), {&piece, 1}, kSum));
    CHECK(broadcast(*me.set, named("broadcast"), array.buffer(), 1));
  });
}

void check_joined() {
  Job{}.run(3, [](Member& me) {
    add_up(me);
    if (me.rank == 2) {
      me.set->join(Join::size, [] {}, [] { return std::uint64_t{0}; });
      return;
    }
    auto array = me.array(filled(me.rank + 1));
    const Piece piece{array.buffer(), array.buffer()};
    Call call = named("allreduce");
    me.set->describe_gpus(call, {&piece, 1});
    allreduce_by_route(*me.set, call, piece, kSum);
    CHECK(array.bytes() == filled(3));
    me.set->join(Join::size, [] {}, [] { return std::uint64_t{0}; });
  });
}

// Lanes -------------------------------------------------------------------------------------------

/// Asynchronous calls on lanes of their own, some of them fused, beside blocking ones.
void check_lanes() {
  Job{}.run(4, [](Member& me) {
    const auto engine = std::make_shared<Engine>(me.control, 2 * kBytes, false, false);
    for (int step = 0; step < 4; ++step) {
      std::vector<std::shared_ptr<Array>> arrays;
      std::vector<std::shared_ptr<Submission>> calls;
      for (int i = 0; i < 7; ++i) {
        arrays.push_back(std::make_shared<Array>(me.device, filled(i + me.rank)));
        const Piece piece{arrays.back()->buffer(), arrays.back()->buffer()};
        Submission::What what{.call = named("allreduce"), .begin = {}, .fusable = {{piece, kSum}}};
        what.call.name = std::to_string(i);
        me.set->describe_gpus(what.call, {&piece, 1});
        what.begin = [](Routes& routes, Operation& operation) {
          return routes.choose(Collective::broadcast, {}).barrier(operation);
        };
        if (i % 3 == 2) {
          what.fusable.reset();
          what.begin = [buffer = piece.output](Routes& routes, Operation& operation) {
            return routes.choose(Collective::broadcast, {}).broadcast(operation, buffer, 1, {});
          };
        }
        calls.push_back(std::make_shared<Submission>(std::move(what), arrays.back()));
        engine->submit(*me.set, calls.back());
        if (i == 3) add_up(me);
      }
      for (const auto& call : calls) {
        CHECK(engine->wait(*call, 60.0));
        call->result();
      }
      for (int i = 0; i < 7; ++i)
        CHECK(arrays[static_cast<std::size_t>(i)]->bytes() ==
              filled(i % 3 == 2 ? i + 1 : 4 * i + 6));
    }
    CHECK(engine->close(*me.set, "the test ended"));
    CHECK(me.set->close("the test ended"));
  });
}

// The end -----------------------------------------------------------------------------------------

/// It waits for operations that are late, which then do what they were called for.
void check_late_end() {
  using namespace std::chrono_literals;
  std::barrier all(2);
  Job{}.run(2, [&](Member& me) {
    add_up(me);
    all.arrive_and_wait();
    if (me.rank == 0) fake_hold()(true);
    all.arrive_and_wait();
    auto array = me.array(filled(me.rank + 1));
    const Piece piece{array.buffer(), array.buffer()};
    CHECK(allreduce(*me.set, named("allreduce"), {&piece, 1}, kSum));
    std::jthread later;
    if (me.rank == 0) {
      later = std::jthread([] {
        std::this_thread::sleep_for(1500ms);  // more than a communicator's own patience
        fake_hold()(false);
      });
    }
    CHECK(me.set->close("the test ended"));
    CHECK(array.bytes() == filled(3));
  });
}

// Failures ----------------------------------------------------------------------------------------

/// One rank has its array on the host. All say so, nothing is written, and work goes on, whether or
/// not NCCL has connected the ranks before.
void check_mismatch() {
  for (const bool connected : {false, true}) {
    Job{}.run(3, [&](Member& me) {
      if (connected) add_up(me);
      auto array = me.array(filled(me.rank));
      auto host = filled(me.rank);
      const Buffer own = me.rank == 1 ? Buffer{host.data(), host.size(), {}} : array.buffer();
      Call call = named("allreduce");
      const Piece piece{own, own};
      me.set->describe_gpus(call, {&piece, 1});
      const auto error = thrown_by([&] { allreduce_by_route(*me.set, call, piece, kSum); });
      CHECK(contains(error, "ranks 0,2: allreduce (on GPUs)"));
      CHECK(contains(error, "rank 1: allreduce"));
      CHECK(array.bytes() == filled(me.rank) && host == filled(me.rank));
      add_up(me);
    });
  }
}

/// A rank agrees to a call and goes, before its GPU comes to it. Those of the others wait, until
/// their next call finds out.
void check_dead_rank() {
  auto settings = quick();
  settings.stall_timeout = 0.7;
  std::barrier all(4);
  Job{.settings = settings}.run(4, [&](Member& me) {
    add_up(me);
    all.arrive_and_wait();
    const bool dies = me.rank == 3;
    if (dies) fake_kill()(me.rank);
    all.arrive_and_wait();
    auto array = me.array(filled(me.rank));
    const Piece piece{array.buffer(), array.buffer()};
    CHECK(allreduce(*me.set, named("allreduce"), {&piece, 1}, kSum));
    all.arrive_and_wait();
    if (dies) {
      me.set.reset();  // which does not wait for ever either
      return;
    }
    CHECK(!thrown_by([&] { allreduce(*me.set, named("allreduce"), {&piece, 1}, kSum); }).empty());
    CHECK(array.bytes() == filled(me.rank));
    CHECK(contains(thrown_by([&] { add_up(me); }), "cannot be used any more"));
  });
}

/// The same of asynchronous calls, where a blocking one finds out.
void check_dead_rank_elsewhere() {
  auto settings = quick();
  settings.stall_timeout = 0.7;
  std::barrier all(3);
  Job{.settings = settings}.run(3, [&](Member& me) {
    auto engine = std::make_shared<Engine>(me.control, kBytes, false, false);
    const auto submit = [&](const std::shared_ptr<Array>& array) {
      const Buffer buffer = array->buffer();
      const auto begin = [buffer](Routes& routes, Operation& operation) {
        return routes.choose(Collective::broadcast, {}).broadcast(operation, buffer, 0, {});
      };
      Submission::What what{.call = named("broadcast"), .begin = begin, .fusable = {}};
      const auto call = std::make_shared<Submission>(std::move(what), array);
      engine->submit(*me.set, call);
      CHECK(engine->wait(*call, 60.0));
      call->result();
    };
    // Until all lanes are connected.
    for (int i = 0; i < 6; ++i) submit(std::make_shared<Array>(me.device, filled(me.rank)));
    all.arrive_and_wait();
    if (me.rank == 2) fake_kill()(me.rank);
    all.arrive_and_wait();
    // On two lanes, neither of which can be freed while the other waits.
    const std::array arrays{std::make_shared<Array>(me.device, filled(me.rank)),
                            std::make_shared<Array>(me.device, filled(me.rank))};
    for (const auto& array : arrays) submit(array);
    all.arrive_and_wait();
    if (me.rank == 2) {
      engine.reset();
      me.set.reset();
      return;
    }
    CHECK(!thrown_by([&] {
             me.set->run(
                 named("barrier"), Collective::broadcast, {},
                 [](Route& route, Operation& operation) { return route.barrier(operation); });
           }).empty());
    for (const auto& array : arrays) CHECK(array->bytes() == filled(me.rank));
  });
}

/// A rank that dies while the others wait for it in phase 0.
void check_lost_rank() {
  Job{.faults = {.dies = 1, .dies_after = 60}}.run(3, [](Member& me) {
    std::string error;
    for (int i = 0; i < 100 && error.empty(); ++i) error = thrown_by([&] { add_up(me); });
    CHECK(contains(error, "rank 1 is dead") || contains(error, "gave up"));
  });
}

/// Arrays on another GPU than before are copied where all ranks have them there; where one has not,
/// all say so. Work goes on.
void check_other_gpu() {
  Job{}.run(2, [](Member& me) {
    add_up(me);
    Array other(device_of(me.rank + 2), filled(me.rank + 1));
    auto usual = me.array(filled(me.rank + 1));
    const Piece elsewhere{other.buffer(), other.buffer()}, here{usual.buffer(), usual.buffer()};
    CHECK(!allreduce(*me.set, named("allreduce"), {&elsewhere, 1}, kSum));
    const Piece both[] = {here, elsewhere};
    CHECK(!allreduce(*me.set, named("allreduce"), both, kSum));
    Call call = named("allreduce");
    me.set->describe_gpus(call, {&elsewhere, 1});
    allreduce_by_route(*me.set, call, elsewhere, kSum);
    CHECK(other.bytes() == filled(3));

    call = named("allreduce");
    const Piece mine = me.rank ? elsewhere : here;
    me.set->describe_gpus(call, {&mine, 1});
    const auto error = thrown_by([&] { allreduce_by_route(*me.set, call, mine, kSum); });
    CHECK(contains(error, "rank 1: allreduce (on GPUs, not on the first that this rank used"));
    add_up(me);
  });
}

}  // namespace

int main() {
  setenv("FAKE_CUDA_DEVICES", "8", 1);
  if (!Nccl::missing().empty() || !is_fake()) {
    std::printf("nothing to try: this is not the fake NCCL\n");
    return 0;
  }
  alarm(300);  // rather than hang
  check_explained();
  check_one_gpu();
  check_others();
  check_joined();
  check_lanes();
  check_late_end();
  check_mismatch();
  check_dead_rank();
  check_dead_rank_elsewhere();
  check_lost_rank();
  check_other_gpu();
}
