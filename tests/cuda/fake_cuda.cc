// A libcuda.so.1 for tests, which needs no GPU: memory of the device is the host's, streams are
// threads, and kernels are those that were compiled for the emulation (emulation.h).
//
// What is not ordered by a stream or an event comes in any order: each thing that is enqueued may
// be delayed a little, and under ThreadSanitizer a missing order is a race. Memory has its exact
// size, so AddressSanitizer sees what goes beyond it, and is full of 0xcd at first.
//
//   FAKE_CUDA_DELAYS=SEED       delays at random (0: none, the default)
//   FAKE_CUDA_DEVICES=N         (1)
//   FAKE_CUDA_ARCHITECTURE=90   of all of them
//   FAKE_CUDA_MEMORY=BYTES      of each; beyond it the memory is out
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "cuda/driver.h"
#include "emulation.h"

namespace {

using ronde::cuda::Address;
using ronde::cuda::Attribute;
using ronde::cuda::Ordinal;
using ronde::cuda::PointerAttribute;
using ronde::cuda::Status;

constexpr auto kInvalidValue = static_cast<Status>(1), kNotInitialised = static_cast<Status>(3),
               kInvalidDevice = static_cast<Status>(101), kInvalidImage = static_cast<Status>(200),
               kInvalidContext = static_cast<Status>(201), kNotFound = static_cast<Status>(500),
               kLaunchFailed = static_cast<Status>(719);

struct Named {
  Status status;
  const char *name, *words;
};
constexpr Named kNames[] = {
    {Status::success, "CUDA_SUCCESS", "no error"},
    {kInvalidValue, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {Status::out_of_memory, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {kNotInitialised, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {Status::no_device, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {kInvalidDevice, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {kInvalidImage, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {kInvalidContext, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {kNotFound, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {Status::not_ready, "CUDA_ERROR_NOT_READY", "device not ready"},
    {kLaunchFailed, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
};

std::size_t setting(const char* name, std::size_t usual) {
  const char* const text = std::getenv(name);
  return text && *text ? std::strtoull(text, nullptr, 10) : usual;
}

// Streams -----------------------------------------------------------------------------------------

class Stream {
 public:
  Stream() : worker_([this] { work(); }) {}
  ~Stream() {
    add(nullptr);
    worker_.join();
  }

  void add(std::function<void()> what) {
    const std::lock_guard lock(mutex_);
    queue_.push_back(std::move(what));
    changed_.notify_all();
  }

  void synchronise() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return queue_.empty(); });
  }

 private:
  void work() {
    static std::atomic<std::size_t> number = 0;
    const std::size_t seed = setting("FAKE_CUDA_DELAYS", 0);
    std::minstd_rand random(static_cast<unsigned>(seed + 1000 * number++));
    while (true) {
      std::function<void()> what;
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return !queue_.empty(); });
        what = queue_.front();
      }
      if (seed && random() % 4 == 0)
        std::this_thread::sleep_for(std::chrono::microseconds(random() % 500));
      if (what) what();
      const bool last = !what;
      what = nullptr;
      const std::lock_guard lock(mutex_);
      queue_.pop_front();  // only now, as who synchronises waits for its end
      changed_.notify_all();
      if (last) return;
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> queue_;
  std::thread worker_;
};

struct Device;

/// All that there are, with their devices.
struct Streams {
  std::mutex mutex;
  std::map<std::shared_ptr<Stream>, const Device*> all;
};

Streams& streams() {
  static auto& one = *new Streams;
  return one;
}

Stream& stream_of(void* handle) {
  static auto& usual = *new Stream;
  // 1 and 2 are other names of it.
  return reinterpret_cast<std::uintptr_t>(handle) > 2 ? *static_cast<Stream*>(handle) : usual;
}

/// Which recording has been reached.
struct Event {
  std::mutex mutex;
  std::condition_variable changed;
  std::size_t recorded = 0, reached = 0;
  std::chrono::steady_clock::time_point at;
};

// Devices -----------------------------------------------------------------------------------------

bool initialised = false;

struct Device {
  Ordinal ordinal;
  std::mutex mutex;
  std::map<Address, std::size_t> memory;
  std::size_t used = 0;
};

bool exists(Ordinal ordinal) {
  return ordinal >= 0 && static_cast<std::size_t>(ordinal) < setting("FAKE_CUDA_DEVICES", 1);
}

Device& device(Ordinal ordinal) {
  static auto& mutex = *new std::mutex;
  static auto& all = *new std::map<Ordinal, Device>;
  const std::lock_guard lock(mutex);
  auto& found = all[ordinal];
  found.ordinal = ordinal;
  return found;
}

thread_local std::vector<Device*> current;

}  // namespace

#define API extern "C" __attribute__((visibility("default"))) Status
#define REQUIRE(condition, status) \
  if (!(condition)) return status
#define REQUIRE_CONTEXT REQUIRE(!current.empty(), kInvalidContext)

API cuInit(unsigned) {
  REQUIRE(setting("FAKE_CUDA_DEVICES", 1) > 0, Status::no_device);
  initialised = true;
  return Status::success;
}

API cuDriverGetVersion(int* version) {
  *version = 12090;
  return Status::success;
}

API cuGetErrorName(Status status, const char** name) {
  *name = nullptr;
  for (const auto& each : kNames) {
    if (each.status == status) *name = each.name;
  }
  return *name ? Status::success : kInvalidValue;
}

API cuGetErrorString(Status status, const char** words) {
  *words = nullptr;
  for (const auto& each : kNames) {
    if (each.status == status) *words = each.words;
  }
  return *words ? Status::success : kInvalidValue;
}

API cuDeviceGetCount(int* count) {
  REQUIRE(initialised, kNotInitialised);
  *count = static_cast<int>(setting("FAKE_CUDA_DEVICES", 1));
  return Status::success;
}

API cuDeviceGetName(char* name, int length, Ordinal ordinal) {
  REQUIRE(exists(ordinal), kInvalidDevice);
  std::snprintf(name, static_cast<std::size_t>(length), "Fake GPU");
  return Status::success;
}

API cuDeviceGetUuid(ronde::cuda::Uuid* uuid, Ordinal ordinal) {
  REQUIRE(exists(ordinal), kInvalidDevice);
  *uuid = {'f', 'a', 'k', 'e'};
  std::memcpy(uuid->data() + 4, &ordinal, sizeof ordinal);
  return Status::success;
}

API cuDeviceGetAttribute(int* value, Attribute attribute, Ordinal ordinal) {
  REQUIRE(exists(ordinal), kInvalidDevice);
  const auto architecture = static_cast<int>(setting("FAKE_CUDA_ARCHITECTURE", 90));
  switch (attribute) {
    case Attribute::multiprocessors:
      *value = 2;
      return Status::success;
    case Attribute::capability_major:
      *value = architecture / 10;
      return Status::success;
    case Attribute::capability_minor:
      *value = architecture % 10;
      return Status::success;
  }
  return kInvalidValue;
}

API cuDevicePrimaryCtxRetain(void** context, Ordinal ordinal) {
  REQUIRE(exists(ordinal), kInvalidDevice);
  *context = &device(ordinal);
  return Status::success;
}

API cuCtxPushCurrent_v2(void* context) {
  current.push_back(static_cast<Device*>(context));
  return Status::success;
}

API cuCtxPopCurrent_v2(void** context) {
  REQUIRE_CONTEXT;
  *context = current.back();
  current.pop_back();
  return Status::success;
}

API cuCtxGetDevice(Ordinal* ordinal) {
  REQUIRE_CONTEXT;
  *ordinal = current.back()->ordinal;
  return Status::success;
}

API cuModuleLoadData(void** module, const void* image) {
  REQUIRE_CONTEXT;
  REQUIRE(std::memcmp(image, "\177ELF", 4) == 0, kInvalidImage);
  *module = const_cast<void*>(image);
  return Status::success;
}

API cuModuleGetFunction(void** function, void*, const char* name) {
  REQUIRE_CONTEXT;
  const auto found = emulation::kernels().find(name);
  REQUIRE(found != emulation::kernels().end(), kNotFound);
  *function = &found->second;
  return Status::success;
}

// Memory ------------------------------------------------------------------------------------------

API cuMemAlloc_v2(Address* at, std::size_t bytes) {
  REQUIRE_CONTEXT;
  REQUIRE(bytes > 0, kInvalidValue);
  auto& here = *current.back();
  const std::lock_guard lock(here.mutex);
  REQUIRE(here.used + bytes <= setting("FAKE_CUDA_MEMORY", std::size_t{1} << 40),
          Status::out_of_memory);
  void* memory = nullptr;
  // As aligned as the driver's.
  REQUIRE(posix_memalign(&memory, 256, bytes) == 0, Status::out_of_memory);
  std::memset(memory, 0xcd, bytes);
  *at = reinterpret_cast<Address>(memory);
  here.memory[*at] = bytes;
  here.used += bytes;
  return Status::success;
}

API cuPointerGetAttribute(void* value, PointerAttribute attribute, Address at) {
  REQUIRE(attribute == PointerAttribute::device, kInvalidValue);
  for (Ordinal ordinal = 0; exists(ordinal); ++ordinal) {
    auto& here = device(ordinal);
    const std::lock_guard lock(here.mutex);
    auto after = here.memory.upper_bound(at);
    if (after == here.memory.begin()) continue;
    const auto& [begin, bytes] = *--after;
    if (at - begin >= bytes) continue;
    *static_cast<Ordinal*>(value) = ordinal;
    return Status::success;
  }
  return kInvalidValue;
}

API cuMemFree_v2(Address at) {
  REQUIRE_CONTEXT;
  auto& here = *current.back();
  const std::lock_guard lock(here.mutex);
  const auto found = here.memory.find(at);
  REQUIRE(found != here.memory.end(), kInvalidValue);
  here.used -= found->second;
  here.memory.erase(found);
  std::free(reinterpret_cast<void*>(at));
  return Status::success;
}

API cuMemHostAlloc(void** at, std::size_t bytes, unsigned) {
  REQUIRE_CONTEXT;
  *at = std::malloc(bytes);
  REQUIRE(*at, Status::out_of_memory);
  std::memset(*at, 0xcd, bytes);
  return Status::success;
}

API cuMemFreeHost(void* at) {
  std::free(at);
  return Status::success;
}

API cuMemcpyAsync(Address to, Address from, std::size_t bytes, void* stream) {
  REQUIRE_CONTEXT;
  stream_of(stream).add([=] {
    std::memcpy(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), bytes);
  });
  return Status::success;
}

API cuMemsetD8Async(Address at, unsigned char byte, std::size_t bytes, void* stream) {
  REQUIRE_CONTEXT;
  stream_of(stream).add([=] { std::memset(reinterpret_cast<void*>(at), byte, bytes); });
  return Status::success;
}

// Streams and events ------------------------------------------------------------------------------

API cuStreamCreate(void** stream, unsigned) {
  REQUIRE_CONTEXT;
  const auto made = std::make_shared<Stream>();
  const std::lock_guard lock(streams().mutex);
  streams().all[made] = current.back();
  *stream = made.get();
  return Status::success;
}

API cuStreamDestroy_v2(void* stream) {
  REQUIRE_CONTEXT;
  const auto is_it = [=](const auto& each) { return each.first.get() == stream; };
  std::shared_ptr<Stream> gone;  // when nobody waits for it, and the mutex is free
  const std::lock_guard lock(streams().mutex);
  const auto found = std::ranges::find_if(streams().all, is_it);
  REQUIRE(found != streams().all.end(), kInvalidValue);
  gone = found->first;
  streams().all.erase(found);
  return Status::success;
}

API cuStreamSynchronize(void* stream) {
  REQUIRE_CONTEXT;
  stream_of(stream).synchronise();
  return Status::success;
}

/// Waits for the streams of the device.
API cuCtxSynchronize() {
  REQUIRE_CONTEXT;
  std::vector<std::shared_ptr<Stream>> here;
  {
    const std::lock_guard lock(streams().mutex);
    for (const auto& [stream, device] : streams().all)
      if (device == current.back()) here.push_back(stream);
  }
  for (const auto& stream : here) stream->synchronise();
  stream_of(nullptr).synchronise();
  return Status::success;
}

API cuEventCreate(void** event, unsigned) {
  REQUIRE_CONTEXT;
  *event = new std::shared_ptr<Event>(std::make_shared<Event>());
  return Status::success;
}

API cuEventDestroy_v2(void* event) {
  REQUIRE_CONTEXT;
  delete static_cast<std::shared_ptr<Event>*>(event);  // what is enqueued keeps it
  return Status::success;
}

API cuEventRecord(void* handle, void* stream) {
  REQUIRE_CONTEXT;
  const auto event = *static_cast<std::shared_ptr<Event>*>(handle);
  std::size_t number = 0;
  {
    const std::lock_guard lock(event->mutex);
    number = ++event->recorded;
  }
  stream_of(stream).add([event, number] {
    const std::lock_guard lock(event->mutex);
    event->reached = std::max(event->reached, number);
    event->at = std::chrono::steady_clock::now();
    event->changed.notify_all();
  });
  return Status::success;
}

API cuEventElapsedTime(float* milliseconds, void* from, void* to) {
  REQUIRE_CONTEXT;
  const auto time = [](void* handle) {
    auto& event = **static_cast<std::shared_ptr<Event>*>(handle);
    const std::lock_guard lock(event.mutex);
    return event.at;
  };
  *milliseconds = std::chrono::duration<float, std::milli>(time(to) - time(from)).count();
  return Status::success;
}

API cuEventQuery(void* handle) {
  REQUIRE_CONTEXT;
  const auto event = *static_cast<std::shared_ptr<Event>*>(handle);
  const std::lock_guard lock(event->mutex);
  return event->reached == event->recorded ? Status::success : Status::not_ready;
}

API cuEventSynchronize(void* handle) {
  REQUIRE_CONTEXT;
  const auto event = *static_cast<std::shared_ptr<Event>*>(handle);
  std::unique_lock lock(event->mutex);
  event->changed.wait(lock, [&] { return event->reached == event->recorded; });
  return Status::success;
}

API cuStreamWaitEvent(void* stream, void* handle, unsigned) {
  REQUIRE_CONTEXT;
  const auto event = *static_cast<std::shared_ptr<Event>*>(handle);
  std::size_t number = 0;
  {
    const std::lock_guard lock(event->mutex);
    number = event->recorded;
  }
  stream_of(stream).add([event, number] {
    std::unique_lock lock(event->mutex);
    event->changed.wait(lock, [&] { return event->reached >= number; });
  });
  return Status::success;
}

/// For the fake NCCL (fake_nccl.cc): runs `run(argument)` on the stream in its turn.
extern "C" __attribute__((visibility("default"))) void fake_cuda_enqueue(void* stream,
                                                                         void (*run)(void*),
                                                                         void* argument) {
  stream_of(stream).add([=] { run(argument); });
}

// Kernels -----------------------------------------------------------------------------------------

API cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void*, int, std::size_t) {
  REQUIRE_CONTEXT;
  *blocks = 8;
  return Status::success;
}

API cuLaunchKernel(void* function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned,
                   unsigned, unsigned shared, void* stream, void**, void** extra) {
  REQUIRE_CONTEXT;
  REQUIRE(x > 0 && y == 1 && z == 1 && shared == 0 && extra, kInvalidValue);
  const auto& kernel = *static_cast<const emulation::Kernel*>(function);
  const void* arguments = nullptr;
  std::size_t bytes = 0;
  for (; *extra; extra += 2) {
    const auto what = reinterpret_cast<std::uintptr_t>(extra[0]);
    if (what == 1) arguments = extra[1];
    if (what == 2) bytes = *static_cast<std::size_t*>(extra[1]);
  }
  REQUIRE(arguments && bytes == kernel.bytes, kInvalidValue);
  const auto* const first = static_cast<const std::byte*>(arguments);
  stream_of(stream).add([&kernel, x, threads, given = std::vector(first, first + bytes)] {
    emulation::launch(kernel, x, threads, given.data());
  });
  return Status::success;
}
