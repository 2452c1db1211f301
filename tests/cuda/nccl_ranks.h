// What the tests of NCCL have in common: ranks that are threads.
#pragma once

#include <dlfcn.h>

#include <barrier>
#include <chrono>
#include <exception>
#include <functional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "cuda/nccl.h"
#include "on_device.h"

namespace ronde::cuda::testing {

inline void nap() { std::this_thread::sleep_for(std::chrono::microseconds(200)); }

/// Functions that only the fake library (fake_nccl.cc) has, to be called when NCCL is in use.
inline auto of_fake(const char* symbol) {
  void* const library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_NOLOAD);
  return reinterpret_cast<void (*)(int)>(library ? dlsym(library, symbol) : nullptr);
}
inline auto fake_kill() { return of_fake("fake_nccl_kill"); }
inline auto fake_hold() { return of_fake("fake_nccl_hold"); }
inline bool is_fake() { return fake_kill() != nullptr; }

inline Device& device_of(int rank) { return Device::get(rank % Driver::get().devices()); }

/// One rank, with a stream of its own, on one of the devices.
struct Rank {
  Rank(const NcclId& id, int size, int rank)
      : device(device_of(rank)), stream(device), nccl(device, id, size, rank) {}

  void settle() {
    while (!nccl.ready()) nap();
  }
  void finish() {
    settle();
    stream.synchronise();
  }

  Device& device;
  const Stream stream;
  NcclCommunicator nccl;
};

/// Runs so many threads.
inline void in_parallel(int count, const std::function<void(int)>& run) {
  std::vector<std::jthread> threads;
  for (int i = 0; i < count; ++i) threads.emplace_back(run, i);
}

/// Runs it as each rank of a communicator, when all are connected.
inline void with_ranks(int size, const std::function<void(Rank&)>& run) {
  const auto id = Nccl::get().unique_id();
  std::barrier connected(size);
  in_parallel(size, [&](int r) {
    Rank rank(id, size, r);
    rank.settle();
    connected.arrive_and_wait();
    run(rank);
  });
}

template <class F>
std::string thrown_by(F f) {
  try {
    f();
    return {};
  } catch (const std::exception& error) {
    return error.what();
  }
}

inline bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

}  // namespace ronde::cuda::testing
