#include "emulation.h"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <numeric>
#include <random>
#include <vector>

#if !defined(__x86_64__)
#error "the emulation switches fibres by hand, for x86-64"
#endif

// This file is compiled without sanitizers, which are told of the fibres, if they are there.
extern "C" {
#define WEAK __attribute__((weak))
WEAK void __sanitizer_start_switch_fiber(void** fake, const void* bottom, std::size_t size);
WEAK void __sanitizer_finish_switch_fiber(void* fake, const void** bottom, std::size_t* size);
WEAK void* __tsan_create_fiber(unsigned flags);
WEAK void* __tsan_get_current_fiber();
WEAK void __tsan_switch_to_fiber(void* fibre, unsigned flags);
WEAK void __tsan_acquire(void* address);
WEAK void __tsan_release(void* address);
WEAK void __tsan_java_alloc(std::uintptr_t address, std::uintptr_t size);
WEAK void __tsan_java_free(std::uintptr_t address, std::uintptr_t size);

/// Where the linker puts the shared arrays, for ThreadSanitizer; null if there are none.
extern WEAK __attribute__((visibility("hidden"))) char __start_emulated_shared[];
extern WEAK __attribute__((visibility("hidden"))) char __stop_emulated_shared[];

/// Goes on where `to` has stopped, which is stored in *from for this one.
void emulation_switch(void** from, void* to);
}

asm(R"(
.text
.globl emulation_switch
.hidden emulation_switch
.type emulation_switch, @function
emulation_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emulation_switch, . - emulation_switch
)");

namespace emulation {
namespace {

constexpr unsigned kMostThreads = 512, kWarp = 32;
constexpr std::size_t kStack = 256 << 10;
constexpr int kMostTurns = 100000;  // in which threads only wait
// Those of ThreadSanitizer are dear, so blocks share them: more than the threads of a block, so
// that the same place in the next one has another. Each has a stack of its own, as it takes what
// two of them write there for a race.
constexpr unsigned kContexts = 521, kShift = 37;

enum class State : std::uint8_t { ready, in_barrier, in_warp, paused, ended };

struct Fibre {
  void* stack = nullptr;   // where it has stopped
  char* bottom = nullptr;  // of it
  State state = State::ready;
  Index index;
  Site site{};
  unsigned mask = 0;
  std::uint64_t given = 0;
  std::uint64_t all[kWarp];
  int votes = 0;
  unsigned barriers = 0, warp_barriers = 0;
  void* context = nullptr;  // of ThreadSanitizer
  void* fake = nullptr;     // stack of AddressSanitizer
};

/// What ThreadSanitizer takes for the order of a barrier. They take turns with two: who leaves one
/// must not seem to know what others did after it.
struct Phases {
  char of[2];
};

struct Block {
  const Kernel* kernel;
  const void* arguments;
  std::vector<Fibre> fibres;
  Phases barrier;
  Phases warps[kMostThreads / kWarp];
  char start, end;
  void* scheduler = nullptr;
  void* scheduler_context = nullptr;
  void* scheduler_fake = nullptr;
  const void* scheduler_bottom = nullptr;
  std::size_t scheduler_size = 0;
};

Block* block = nullptr;
Fibre* now = nullptr;

char* stack_of(unsigned context) {
  static auto* const all =
      static_cast<char*>(mmap(nullptr, kContexts * kStack, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  return all + context * kStack;
}

void acquire(char& order) {
  if (__tsan_acquire) __tsan_acquire(&order);
}
void release(char& order) {
  if (__tsan_release) __tsan_release(&order);
}

/// What follows is other memory for ThreadSanitizer, at an address that it has seen before.
void forget(const char* begin, const char* end) {
  if (!__tsan_java_alloc || begin == end) return;
  const auto first = reinterpret_cast<std::uintptr_t>(begin) & ~std::uintptr_t{7};
  const auto size = (reinterpret_cast<std::uintptr_t>(end) - first + 7) & ~std::uintptr_t{7};
  __tsan_java_free(first, size);
  __tsan_java_alloc(first, size);
}

/// Back to the scheduler, until it comes back.
void give_way() {
  Fibre& fibre = *now;
  if (__sanitizer_start_switch_fiber)
    __sanitizer_start_switch_fiber(fibre.state == State::ended ? nullptr : &fibre.fake,
                                   block->scheduler_bottom, block->scheduler_size);
  if (__tsan_switch_to_fiber) __tsan_switch_to_fiber(block->scheduler_context, 1);
  emulation_switch(&fibre.stack, block->scheduler);
  if (__sanitizer_finish_switch_fiber)
    __sanitizer_finish_switch_fiber(fibre.fake, nullptr, nullptr);
}

void begin() {
  if (__sanitizer_finish_switch_fiber)
    __sanitizer_finish_switch_fiber(nullptr, &block->scheduler_bottom, &block->scheduler_size);
  acquire(block->start);
  block->kernel->run(block->arguments);
  release(block->end);
  now->state = State::ended;
  give_way();
  std::abort();
}

void go_on(unsigned thread) {
  now = &block->fibres[thread];
  if (__sanitizer_start_switch_fiber)
    __sanitizer_start_switch_fiber(&block->scheduler_fake, now->bottom, kStack);
  if (__tsan_switch_to_fiber) __tsan_switch_to_fiber(now->context, 1);
  emulation_switch(&block->scheduler, now->stack);
  if (__sanitizer_finish_switch_fiber)
    __sanitizer_finish_switch_fiber(block->scheduler_fake, nullptr, nullptr);
  now = nullptr;
}

bool same(const Site& a, const Site& b) {
  return a.line == b.line && std::strcmp(a.file, b.file) == 0;
}

/// Lets a barrier end when all threads of the block are there.
bool release_barrier() {
  auto& fibres = block->fibres;
  int votes = 0;
  for (const auto& fibre : fibres) {
    if (fibre.state != State::in_barrier) return false;
    if (!same(fibre.site, fibres[0].site)) stop("threads are in different barriers");
    votes += fibre.votes;
  }
  for (auto& fibre : fibres) {
    fibre.votes = votes;
    fibre.state = State::ready;
  }
  return true;
}

/// Lets the operation of this warp end in which its thread `lane` is, if all are there that it
/// names.
bool release_warp(std::size_t first, unsigned lane) {
  auto& fibres = block->fibres;
  const Fibre& one = fibres[first + lane];
  if (!(one.mask >> lane & 1))
    stop("a thread is in an operation of its warp that does not name it");
  std::uint64_t all[kWarp] = {};
  for (unsigned i = 0; i < kWarp; ++i) {
    if (!(one.mask >> i & 1)) continue;
    if (first + i >= fibres.size()) stop("an operation of a warp names threads that there are not");
    const Fibre& other = fibres[first + i];
    if (other.state == State::ended) stop("an operation of a warp names threads that have ended");
    if (other.state != State::in_warp) return false;
    if (other.mask != one.mask || !same(other.site, one.site))
      stop("threads are in different operations of their warp");
    all[i] = other.given;
  }
  const unsigned mask = one.mask;
  for (unsigned i = 0; i < kWarp; ++i) {
    if (!(mask >> i & 1)) continue;
    std::memcpy(fibres[first + i].all, all, sizeof all);
    fibres[first + i].state = State::ready;
  }
  return true;
}

/// Makes all ready that can go on; whether any is.
bool release_all() {
  bool any = false;
  auto& fibres = block->fibres;
  for (std::size_t i = 0; i < fibres.size(); ++i) {
    auto& fibre = fibres[i];
    if (fibre.state == State::paused) fibre.state = State::ready;
    if (fibre.state == State::in_warp) release_warp(i / kWarp * kWarp, i % kWarp);
    any |= fibre.state == State::ready;
  }
  return any || release_barrier();
}

/// In which order so many take turns.
std::vector<unsigned> turns(unsigned count) {
  std::vector<unsigned> order(count);
  std::iota(order.begin(), order.end(), 0u);
  const char* const wanted = std::getenv("EMULATION_ORDER");
  if (!wanted || !std::strcmp(wanted, "forward")) return order;
  if (!std::strcmp(wanted, "backward")) return {order.rbegin(), order.rend()};
  std::mt19937 random(static_cast<unsigned>(std::atoi(wanted)));
  for (unsigned i = count; i > 1; --i) std::swap(order[i - 1], order[random() % i]);
  return order;
}

void run_block(unsigned number, const std::vector<unsigned>& order, void* const* contexts) {
  const auto count = static_cast<unsigned>(order.size());
  forget(__start_emulated_shared, __stop_emulated_shared);
  for (unsigned i = 0; i < count; ++i) {
    auto& fibre = block->fibres[i];
    const Index index{{i, 0, 0}, {number, 0, 0}, {count, 1, 1}, block->fibres[i].index.blocks};
    fibre = {};
    fibre.index = index;
    const unsigned context = (i + kShift * number) % kContexts;
    if (contexts) fibre.context = contexts[context];
    fibre.bottom = stack_of(context);
    // As if begin() had been called: six saved registers, its address, and an aligned stack.
    auto* const top = reinterpret_cast<void**>(fibre.bottom + kStack) - 8;
    std::fill(top, top + 8, nullptr);
    top[6] = reinterpret_cast<void*>(&begin);
    fibre.stack = top;
  }
  std::size_t ended = 0;
  for (int idle = 0; ended < count;) {
    if (!release_all()) stop("threads wait for each other");
    bool moved = false;
    for (const unsigned i : order) {
      if (block->fibres[i].state != State::ready) continue;
      go_on(i);
      ended += block->fibres[i].state == State::ended;
      moved |= block->fibres[i].state != State::paused;
    }
    idle = moved ? 0 : idle + 1;
    if (idle > kMostTurns) stop("threads wait for what never comes");
  }
}

void* const* sanitizer_contexts() {
  if (!__tsan_create_fiber) return nullptr;
  static const auto* const all = [] {
    auto* made = new std::vector<void*>;
    for (unsigned i = 0; i < kContexts; ++i) made->push_back(__tsan_create_fiber(0));
    return made;
  }();
  return all->data();
}

}  // namespace

std::unordered_map<std::string, Kernel>& kernels() {
  static auto& all = *new std::unordered_map<std::string, Kernel>;
  return all;
}

void launch(const Kernel& kernel, unsigned blocks, unsigned threads, const void* arguments) {
  static std::mutex one_at_a_time;
  const std::lock_guard lock(one_at_a_time);
  static auto& own = *new Block;
  block = &own;
  if (threads == 0 || threads > kMostThreads)
    stop("a block of " + std::to_string(threads) + " threads");
  own.kernel = &kernel;
  own.arguments = arguments;
  own.fibres.assign(threads, {});
  for (auto& fibre : own.fibres) fibre.index.blocks = {blocks, 1, 1};
  if (__tsan_get_current_fiber) own.scheduler_context = __tsan_get_current_fiber();
  const auto order = turns(threads);
  release(own.start);
  for (const unsigned number : turns(blocks)) run_block(number, order, sanitizer_contexts());
  acquire(own.end);
}

const Index& index() { return now->index; }

int barrier(const Site& site, bool vote) {
  auto& order = block->barrier.of[now->barriers++ % 2];
  release(order);
  now->site = site;
  now->votes = vote;
  now->state = State::in_barrier;
  give_way();
  acquire(order);
  return now->votes;
}

const std::uint64_t* exchange(const Site& site, unsigned mask, std::uint64_t value) {
  now->site = site;
  now->mask = mask;
  now->given = value;
  now->state = State::in_warp;
  give_way();
  return now->all;
}

void synchronise_warp(const Site& site, unsigned mask) {
  auto& order = block->warps[now->index.thread.x / kWarp].of[now->warp_barriers++ % 2];
  release(order);
  exchange(site, mask, 0);
  acquire(order);
}

void pause() {
  now->state = State::paused;
  give_way();
}

void stop(const std::string& why) {
  std::fprintf(stderr, "emulation: %s\n", why.c_str());
  static const char* const states[] = {"ready", "in", "in", "paused", "ended"};
  for (unsigned i = 0; block && i < block->fibres.size(); ++i) {
    const auto& fibre = block->fibres[i];
    const bool in = fibre.state == State::in_barrier || fibre.state == State::in_warp;
    std::fprintf(stderr, "  block %u thread %u: %s %s %s:%d\n", fibre.index.block.x, i,
                 states[static_cast<int>(fibre.state)], in ? fibre.site.what : "",
                 in ? fibre.site.file : "", in ? fibre.site.line : 0);
  }
  std::abort();
}

float widen_half(std::uint16_t half) {
  if ((half & 0x7fff) > 0x7c00) return std::bit_cast<float>(0x7fffffff);
  _Float16 x;
  std::memcpy(&x, &half, sizeof x);
  return static_cast<float>(x);
}

std::uint16_t narrow_half(float x) {
  if (x != x) return 0x7fff;
  const auto narrow = static_cast<_Float16>(x);
  std::uint16_t half = 0;
  std::memcpy(&half, &narrow, sizeof half);
  return half;
}

}  // namespace emulation
