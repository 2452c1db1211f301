// Scratch memory: when it is used again, that nothing still at work with it is disturbed, and what
// happens when the memory is out.
#include "cuda/scratch.h"

#include <algorithm>
#include <cstdio>
#include <string>
#include <thread>

#include "core/error.h"
#include "on_device.h"

namespace {

using namespace ronde;
using namespace ronde::cuda;
using Kind = Memory::Kind;

constexpr std::size_t kMemory = 64 << 20;  // of the fake device

Device& device() { return Device::get(0); }

bool all_are(std::span<const std::byte> bytes, unsigned char value) {
  return std::ranges::all_of(bytes, [&](std::byte byte) { return byte == std::byte{value}; });
}

/// Enqueues what fills the scratch and copies it back.
void use(const Stream& stream, const Scratch& scratch, unsigned char value,
         std::vector<std::byte>& result) {
  result.resize(scratch.size());
  device().fill(stream, scratch.data(), value, scratch.size());
  device().copy(stream, result.data(), scratch.data(), scratch.size());
}

/// A stream's own at once, and it costs no new memory.
void same_stream() {
  ScratchPool pool(device(), Kind::device);
  const Stream stream(device());
  const std::byte* first = nullptr;
  std::vector<std::vector<std::byte>> results(50);
  for (std::size_t i = 0; i < results.size(); ++i) {
    const auto scratch = pool.take(stream, 100000 + i);
    CHECK(scratch.size() == 100000 + i);
    CHECK(reinterpret_cast<std::uintptr_t>(scratch.data()) % 256 == 0);
    if (!first) first = scratch.data();
    CHECK(scratch.data() == first);
    CHECK(pool.usage().in_use >= scratch.size() && pool.usage().in_use <= scratch.size() * 5 / 4);
    CHECK(pool.usage().cached == 0);
    use(stream, scratch, static_cast<unsigned char>(i), results[i]);
  }
  CHECK(pool.usage().in_use == 0 && pool.usage().cached >= 100000);
  pool.trim();
  CHECK(pool.usage().cached == 0);
  for (std::size_t i = 0; i < results.size(); ++i)
    CHECK(all_are(results[i], static_cast<unsigned char>(i)));
}

/// Another stream's only when that has come so far.
void other_stream() {
  ScratchPool pool(device(), Kind::device);
  const Stream left(device()), right(device());
  std::vector<std::byte> results[2];
  for (int round = 0; round < 100; ++round) {
    use(left, pool.take(left, 3000), 1, results[0]);
    use(right, pool.take(right, 3000), 2, results[1]);
    left.synchronise();
    right.synchronise();
    CHECK(all_are(results[0], 1) && all_are(results[1], 2));
    // Now either can have either, and there are no more than these two.
    {
      const auto a = pool.take(right, 3000), b = pool.take(right, 3000);
      CHECK(a.data() != b.data());
    }
    right.synchronise();
    CHECK(pool.usage().in_use + pool.usage().cached <= 2 * 3072);
  }
}

/// The host writes it without a stream, so the stream must have read it.
void pinned() {
  ScratchPool pool(device(), Kind::pinned);
  const Stream stream(device());
  const OnDevice target(device(), stream, 50 * 1000);
  for (unsigned char i = 0; i < 50; ++i) {
    const auto scratch = pool.take(stream, 1000);
    std::memset(scratch.data(), i, scratch.size());
    device().copy(stream, target.data() + i * 1000, scratch.data(), scratch.size());
  }
  const auto bytes = target.bytes();
  for (unsigned char i = 0; i < 50; ++i)
    CHECK(all_are(std::span(bytes).subspan(i * 1000, 1000), i));
  const auto cached = pool.usage().cached;
  CHECK(cached >= 1024 && cached <= 50 * 1024);
  const auto again = pool.take(stream, 1000);
  CHECK(pool.usage().cached == cached - 1024);
}

void moved() {
  ScratchPool pool(device(), Kind::device);
  const Stream stream(device());
  Scratch none;
  CHECK(!none.data() && none.size() == 0);
  auto a = pool.take(stream, 600), b = pool.take(stream, 5000);
  CHECK(pool.usage().in_use == 640 + 5120);
  auto* const data = a.data();
  Scratch c(std::move(a));
  CHECK(c.data() == data && c.size() == 600);
  c = std::move(b);  // gives back what it had
  CHECK(c.size() == 5000 && pool.usage().in_use == 5120 && pool.usage().cached == 640);
  c = Scratch();
  CHECK(pool.usage().in_use == 0 && pool.usage().cached == 640 + 5120);
  const auto empty = pool.take(stream, 0);
  CHECK(empty.size() == 0);
  CHECK(&ScratchPool::of(device(), Kind::device) == &ScratchPool::of(device(), Kind::device));
  CHECK(&ScratchPool::of(device(), Kind::device) != &ScratchPool::of(device(), Kind::pinned));
}

/// A block serves all sizes down to half of its own, in which an alltoall may receive.
void many_sizes() {
  ScratchPool pool(device(), Kind::device);
  const Stream stream(device());
  pool.take(stream, 200000);
  const auto first = pool.usage().cached;
  for (std::size_t i = 0; i < 200; ++i) {
    const std::size_t bytes = 120000 + i * 7919 % 80000;
    const auto scratch = pool.take(stream, bytes);
    CHECK(scratch.size() == bytes);
    CHECK(pool.usage().in_use == first && pool.usage().cached == 0);
  }
  CHECK(pool.usage().cached == first);
  pool.trim();
  CHECK(pool.usage().cached == 0);
}

/// What a stream of the caller's has used last is used again, or freed, when that has come so far.
void used_by_a_caller() {
  ScratchPool pool(device(), Kind::device);
  const Stream ours(device()), callers(device());
  auto late = pool.take(ours, kMemory / 2);
  late.end_use();
  std::vector<std::byte> result(late.size());
  device().copy(callers, result.data(), late.data(), late.size());
  late.give_back_after(callers);
  CHECK(pool.usage().cached >= kMemory / 2);
  callers.synchronise();
  const auto more = pool.take(ours, kMemory / 2 + kMemory / 4);  // for which that is freed
  CHECK(pool.usage().cached == 0);
}

/// Threads with streams of their own, and with one that they share.
void threads() {
  ScratchPool pool(device(), Kind::device);
  const Stream shared(device());
  const auto work = [&](std::uint64_t number) {
    std::mt19937_64 random(seed() + number);
    const Stream own(device());
    for (int round = 0; round < 30; ++round) {
      std::vector<std::vector<std::byte>> results(3);
      std::vector<Scratch> taken;
      for (auto& result : results) {
        const Stream& stream = random() % 2 ? own : shared;
        taken.push_back(pool.take(stream, 1 + random() % 3000));
        use(stream, taken.back(), static_cast<unsigned char>(number), result);
        if (random() % 2) taken.erase(taken.begin());
      }
      taken.clear();
      if (random() % 16 == 0) pool.trim();
      own.synchronise();
      shared.synchronise();
      for (const auto& result : results) CHECK(all_are(result, static_cast<unsigned char>(number)));
    }
  };
  {
    std::vector<std::jthread> all;
    for (std::uint64_t number = 1; number <= 4; ++number) all.emplace_back(work, number);
  }
  CHECK(pool.usage().in_use == 0);
}

/// What is kept is freed when the driver has no more, but not while a stream is at work with it.
void out_of_memory() {
  const bool fake = device().name() == "Fake GPU";
  ScratchPool pool(device(), Kind::device);
  const Stream stream(device());
  std::vector<std::byte> results[2];
  use(stream, pool.take(stream, kMemory / 8 * 4), 1, results[0]);
  const auto held = pool.take(stream, kMemory / 8);
  use(stream, pool.take(stream, kMemory / 8 * 6), 2, results[1]);  // does not fit beside the first
  if (fake) CHECK(pool.usage().cached == kMemory / 8 * 6);
  std::string text;
  try {
    pool.take(stream, std::size_t{1} << 50);
  } catch (const Error& error) {
    text = error.what();
  }
  CHECK(text.find("1125899906842624 bytes") != std::string::npos);
  CHECK(text.find("CUDA_ERROR_OUT_OF_MEMORY") != std::string::npos);
  CHECK(text.find(std::to_string(kMemory / 8) + " bytes of scratch are in use") !=
        std::string::npos);
  if (fake)
    CHECK(text.find(std::to_string(kMemory / 8 * 6) + " that were cached") != std::string::npos);
  CHECK(pool.usage().in_use == held.size() && pool.usage().cached == 0);
  stream.synchronise();
  CHECK(all_are(results[0], 1) && all_are(results[1], 2));

  pool.take(stream, kMemory / 8 * 5);
  const auto own = pool.memory(kMemory / 8 * 4);  // does not fit beside what is kept
  CHECK(own->size() == kMemory / 8 * 4 && (!fake || pool.usage().cached == 0));
}

}  // namespace

int main() {
  setenv("FAKE_CUDA_MEMORY", std::to_string(kMemory).c_str(), 1);
  same_stream();
  other_stream();
  pinned();
  moved();
  many_sizes();
  used_by_a_caller();
  threads();
  out_of_memory();
  std::printf("scratch is reused in order\n");
}
