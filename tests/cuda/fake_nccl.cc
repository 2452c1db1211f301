// A libnccl.so.2 for tests, which needs no GPU: ranks are threads of one process, or in several
// processes of one machine (fake_nccl_remote.h). Streams and memory are those of the fake driver
// (fake_cuda.cc).
//
// As with NCCL's kernels, an operation runs when its stream comes to it, blocks the stream, not the
// caller, until its peers have come, and reads and writes their memory then. Operations of a
// communicator run in the order of the calls, those of a group at once. Sums are made in the order
// of the ranks; of half types in float32, and rounded after each step.
//
// It is stricter than NCCL: a send waits for its receive, however short it is. Calls that do not
// belong together, and ranks that wait for each other, are reported by ncclCommGetAsyncError and
// ncclGetLastError to the ranks whose calls they are, and as with a rank that never comes, only
// ncclCommAbort ends their operations.
//
// As it frees memory, the end of a communicator waits for all that is enqueued on its device, that
// of other communicators included.
//
// The variable FAKE_CUDA_DELAYS (SEED) lets non-blocking calls be in progress for a while.
// FAKE_NCCL_OLD, if defined, makes it one of before 2.13.
#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "fake_nccl_member.h"
#include "fake_nccl_remote.h"
#include "fake_nccl_world.h"

namespace fake_nccl {
namespace {

// Communicators -----------------------------------------------------------------------------------

struct Id {
  char bytes[128];
};

/// ncclConfig_t of 2.14, with which all others begin.
struct Config {
  std::size_t size;
  unsigned magic, version;
  int blocking;
};

struct Communicator {
  std::shared_ptr<Member> member;
  bool blocking = true, finalised = false;
  std::size_t issued = 0;  // groups
  std::atomic<bool> enqueues = false;
  std::atomic<unsigned> slow = 0;  // so often it is asked before it is ready
  std::thread background;
};

struct Registry {
  std::mutex mutex;
  std::map<std::string, std::shared_ptr<World>> worlds;  // as long as the process lives
  std::set<const Communicator*> alive;
};

Registry& registry() {
  static auto& one = *new Registry;
  return one;
}

std::shared_ptr<World> world_of(const std::string& id, int size) {
  const std::lock_guard lock(registry().mutex);
  auto& world = registry().worlds[id];
  if (!world) world = std::make_shared<World>(size);
  return world;
}

thread_local std::string last_error;

Result wrong(Result result, const std::string& why) {
  last_error = why;
  return result;
}

/// At random, if delays are wanted.
unsigned random_number() {
  static const char* const text = std::getenv("FAKE_CUDA_DELAYS");
  static const auto seed = text ? std::strtoull(text, nullptr, 10) : 0;
  static std::atomic<std::uint64_t> drawn = 0;
  if (seed == 0) return 0;
  std::uint64_t x = (seed + ++drawn) * 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 31)) * 0xbf58476d1ce4e5b9u;
  return static_cast<unsigned>(x >> 40);
}

template <class F>
F of_driver(const char* symbol) {
  static void* const library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  void* const found = library ? dlsym(library, symbol) : nullptr;
  if (!found) {
    std::fprintf(stderr, "fake NCCL: the fake CUDA driver is missing\n");
    std::abort();
  }
  return reinterpret_cast<F>(found);
}

void enqueue_on(void* stream, std::function<void()> what) {
  static const auto enqueue =
      of_driver<void (*)(void*, void (*)(void*), void*)>("fake_cuda_enqueue");
  enqueue(
      stream,
      [](void* given) {
        const std::unique_ptr<std::function<void()>> mine(
            static_cast<std::function<void()>*>(given));
        (*mine)();
      },
      new std::function<void()>(std::move(what)));
}

bool has_context() {
  void* context = nullptr;
  if (of_driver<int (*)(void**)>("cuCtxPopCurrent_v2")(&context) != 0) return false;
  of_driver<int (*)(void*)>("cuCtxPushCurrent_v2")(context);
  return true;
}

/// Of what was called last.
Result state(const Communicator& comm) {
  const auto now = comm.member->state();
  if (now.failed) return Result::invalid_usage;
  const bool done = !comm.enqueues && now.complete && comm.slow == 0;
  return done && (!comm.finalised || now.quiet) ? Result::success : Result::in_progress;
}

bool alive(const Communicator* comm) {
  const std::lock_guard lock(registry().mutex);
  return registry().alive.contains(comm);
}

/// Whether it takes another call.
Result usable(Communicator* comm) {
  if (!alive(comm)) return wrong(Result::invalid_argument, "this is no communicator");
  if (comm->finalised) return wrong(Result::invalid_usage, "the communicator is finalised");
  const auto now = state(*comm);
  if (now == Result::in_progress)
    return wrong(Result::invalid_argument,
                 "the communicator is used before what was called last has been done");
  return now;
}

Result create(Communicator** made, int size, const Id& id, int rank, bool blocking) {
  if (size < 1 || rank < 0 || rank >= size)
    return wrong(Result::invalid_argument,
                 "no rank " + std::to_string(rank) + " of " + std::to_string(size));
  if (!has_context()) return wrong(Result::unhandled_cuda_error, "no device is current");
  auto comm = std::make_unique<Communicator>();
  if (is_local(id.bytes))
    comm->member = std::make_shared<LocalMember>(world_of(id.bytes, size), rank, size);
  else
    comm->member = remote_member(id.bytes, rank, size);
  if (const auto why = comm->member->join(); !why.empty()) return wrong(Result::invalid_usage, why);
  comm->blocking = blocking;
  comm->slow = blocking ? 0 : random_number() % 4;
  const std::lock_guard lock(registry().mutex);
  registry().alive.insert(comm.get());
  *made = comm.release();
  return Result::success;
}

void destroy(Communicator* comm) {
  if (comm->background.joinable()) comm->background.join();
  of_driver<int (*)()>("cuCtxSynchronize")();
  {
    const std::lock_guard lock(registry().mutex);
    registry().alive.erase(comm);
  }
  delete comm;
}

void nap() { std::this_thread::sleep_for(std::chrono::microseconds(100)); }

void finalise(Communicator& comm) {
  if (comm.background.joinable()) comm.background.join();
  if (!std::exchange(comm.finalised, true)) comm.member->finalise(comm.issued);
}

// Groups ------------------------------------------------------------------------------------------

thread_local int depth = 0;
thread_local Result group_result = Result::success;
thread_local std::vector<std::pair<Communicator*, std::shared_ptr<Group>>> groups;

void put_on_streams(const std::shared_ptr<Member>& member, const std::shared_ptr<Group>& group) {
  for (void* const stream : group->streams) enqueue_on(stream, [=] { member->run(group); });
}

Result start_group(Communicator* comm, const std::shared_ptr<Group>& group) {
  group->number = comm->issued++;
  if (comm->blocking || random_number() % 2 == 0) {
    put_on_streams(comm->member, group);
    return Result::success;
  }
  if (comm->background.joinable()) comm->background.join();
  comm->enqueues = true;
  comm->background = std::thread([=] {
    std::this_thread::sleep_for(std::chrono::microseconds(random_number() % 500));
    put_on_streams(comm->member, group);
    comm->enqueues = false;
  });
  return Result::in_progress;
}

Result end_group() {
  if (depth == 0) return wrong(Result::invalid_usage, "a group ends that has not begun");
  if (--depth > 0) return Result::success;
  const auto all = std::exchange(groups, {});
  auto result = std::exchange(group_result, Result::success);
  if (result != Result::success) return result;
  for (const auto& [comm, group] : all) {
    if (comm->blocking != all.front().first->blocking)
      return wrong(Result::invalid_argument, "a group has blocking and other communicators");
  }
  for (const auto& [comm, group] : all) {
    if (start_group(comm, group) == Result::in_progress) result = Result::in_progress;
  }
  return result;
}

Result add(const Call& call, Communicator* comm, void* stream) {
  ++depth;
  auto result = usable(comm);
  if (result == Result::success) {
    if (const auto why = complaint(call, comm->member->size); !why.empty())
      result = wrong(Result::invalid_argument, why);
  }
  if (result == Result::success) {
    auto found = std::find_if(groups.begin(), groups.end(),
                              [&](const auto& each) { return each.first == comm; });
    if (found == groups.end()) {
      groups.emplace_back(comm, std::make_shared<Group>());
      found = groups.end() - 1;
    }
    found->second->calls.push_back(call);
    found->second->streams.insert(stream);
  } else {
    group_result = result;
  }
  const auto ended = end_group();
  return result == Result::success ? ended : result;
}

}  // namespace
}  // namespace fake_nccl

// The functions of NCCL ---------------------------------------------------------------------------

using namespace fake_nccl;

#define API extern "C" __attribute__((visibility("default")))

API Result ncclGetVersion(int* version) {
#if defined(FAKE_NCCL_OLD)
  *version = 21212;
#else
  *version = 22809;
#endif
  return Result::success;
}

API const char* ncclGetErrorString(Result result) {
  switch (result) {
    case Result::success:
      return "no error";
    case Result::unhandled_cuda_error:
      return "unhandled cuda error";
    case Result::invalid_argument:
      return "invalid argument";
    case Result::invalid_usage:
      return "invalid usage";
    case Result::in_progress:
      return "NCCL operation in progress";
  }
  return "unknown result code";
}

API Result ncclGetUniqueId(Id* id) {
  static const bool answers = (answer(world_of), true);
  (void)answers;
  *id = {};
  std::snprintf(id->bytes, sizeof id->bytes, "%s", make_id().c_str());
  return Result::success;
}

API Result ncclCommInitRank(Communicator** made, int size, Id id, int rank) {
  const auto result = create(made, size, id, rank, true);
  if (result != Result::success) return result;
  while (!(*made)->member->state().complete) nap();
  return result;
}

API Result ncclCommGetAsyncError(Communicator* comm, Result* found) {
  if (!alive(comm)) return wrong(Result::invalid_argument, "this is no communicator");
  *found = state(*comm);
  if (comm->slow > 0 && comm->member->state().complete) --comm->slow;
  return Result::success;
}

API Result ncclCommAbort(Communicator* comm) {
  if (!alive(comm)) return wrong(Result::invalid_argument, "this is no communicator");
  comm->member->abort();
  destroy(comm);
  return Result::success;
}

API Result ncclCommDestroy(Communicator* comm) {
  if (!alive(comm)) return wrong(Result::invalid_argument, "this is no communicator");
  finalise(*comm);
  while (!comm->member->state().quiet) nap();
  destroy(comm);
  return Result::success;
}

API Result ncclCommCount(const Communicator* comm, int* count) {
  if (!alive(comm)) return wrong(Result::invalid_argument, "this is no communicator");
  *count = comm->member->size;
  return Result::success;
}

API Result ncclGroupStart() {
  ++depth;
  return Result::success;
}

API Result ncclGroupEnd() { return end_group(); }

API Result ncclSend(const void* from, std::size_t count, int type, int peer, Communicator* comm,
                    void* stream) {
  return add({.kind = Kind::send, .in = from, .count = count, .type = type, .peer = peer}, comm,
             stream);
}

API Result ncclRecv(void* to, std::size_t count, int type, int peer, Communicator* comm,
                    void* stream) {
  return add({.kind = Kind::receive, .out = to, .count = count, .type = type, .peer = peer}, comm,
             stream);
}

API Result ncclAllReduce(const void* in, void* out, std::size_t count, int type, int op,
                         Communicator* comm, void* stream) {
  return add({Kind::all_reduce, in, out, count, type, op}, comm, stream);
}

API Result ncclReduceScatter(const void* in, void* out, std::size_t count, int type, int op,
                             Communicator* comm, void* stream) {
  return add({Kind::reduce_scatter, in, out, count, type, op}, comm, stream);
}

API Result ncclAllGather(const void* in, void* out, std::size_t count, int type, Communicator* comm,
                         void* stream) {
  return add({Kind::all_gather, in, out, count, type}, comm, stream);
}

API Result ncclBroadcast(const void* in, void* out, std::size_t count, int type, int root,
                         Communicator* comm, void* stream) {
  return add({Kind::broadcast, in, out, count, type, 0, root}, comm, stream);
}

API Result ncclReduce(const void* in, void* out, std::size_t count, int type, int op, int root,
                      Communicator* comm, void* stream) {
  return add({Kind::reduce, in, out, count, type, op, root}, comm, stream);
}

#if !defined(FAKE_NCCL_OLD)

API const char* ncclGetLastError(Communicator* comm) {
  thread_local std::string text;
  text = alive(comm) ? comm->member->error() : std::string();
  if (text.empty()) text = last_error;
  return text.c_str();
}

API Result ncclCommInitRankConfig(Communicator** made, int size, Id id, int rank,
                                  const Config* config) {
  if (config && (config->magic != 0xcafebeef || config->size < sizeof(Config)))
    return wrong(Result::invalid_argument, "a configuration that was not initialised");
  if (!config || config->blocking != 0) return ncclCommInitRank(made, size, id, rank);
  const auto result = create(made, size, id, rank, false);
  return result == Result::success ? Result::in_progress : result;
}

API Result ncclCommFinalize(Communicator* comm) {
  if (const auto result = usable(comm); result != Result::success) return result;
  finalise(*comm);
  if (!comm->blocking) return Result::in_progress;
  while (!comm->member->state().quiet) nap();
  return Result::success;
}

#endif

/// From now on the rank of that number never comes, in the communicators that there are.
API void fake_nccl_kill(int rank) {
  const std::lock_guard lock(registry().mutex);
  for (const auto& [id, world] : registry().worlds) world->kill(rank);
}

/// Whether operations wait from now on, in the communicators that there are.
API void fake_nccl_hold(int held) {
  const std::lock_guard lock(registry().mutex);
  for (const auto& [id, world] : registry().worlds) world->hold(held != 0);
}
