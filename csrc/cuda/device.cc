#include "cuda/device.h"

#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "core/error.h"
#include "cuda/images.h"
#include "cuda/kernels/types.h"

namespace ronde::cuda {
namespace {

Address address(const void* memory) { return reinterpret_cast<Address>(memory); }

/// What is given back in a destructor, perhaps after the driver has ended: then there is nothing to
/// do.
template <class F>
void give_back(const Device& device, F f) {
  try {
    const Device::Current current(device);
    f(Driver::get());
  } catch (const Error&) {
  }
}

/// The images that the device can run: of its own generation, the newest that it understands.
std::map<std::string_view, Image> suitable(int architecture) {
  std::map<std::string_view, Image> found;
  for (const auto& image : images()) {
    const bool runs =
        image.architecture / 10 == architecture / 10 && image.architecture <= architecture;
    if (!runs) continue;
    auto& best = found.try_emplace(image.file, image).first->second;
    if (image.architecture > best.architecture) best = image;
  }
  return found;
}

}  // namespace

Device& Device::get(Ordinal ordinal) {
  static auto& mutex = *new std::mutex;
  static auto& all = *new std::map<Ordinal, std::unique_ptr<Device>>;  // never destroyed
  const std::lock_guard lock(mutex);
  auto& device = all[ordinal];
  if (!device) device.reset(new Device(ordinal));
  return *device;
}

Device& Device::holding(const void* memory) {
  constexpr auto kInvalidValue = static_cast<Status>(1);
  Ordinal ordinal = 0;
  const auto& driver = Driver::get();
  const auto status =
      driver.PointerGetAttribute(&ordinal, PointerAttribute::device, address(memory));
  if (status == kInvalidValue) throw ArgumentError("the memory is not that of a GPU");
  driver.check(status, "asking which GPU holds an array");
  return get(ordinal);
}

Device& Device::current() {
  constexpr auto kInvalidContext = static_cast<Status>(201);
  Ordinal ordinal = 0;
  const auto& driver = Driver::get();
  const auto status = driver.CtxGetDevice(&ordinal);
  if (status != kInvalidContext) driver.check(status, "asking for the current GPU");
  return get(ordinal);
}

Device::Facts Device::ask(Ordinal ordinal) {
  const auto& driver = Driver::get();
  const auto text = "GPU " + std::to_string(ordinal);
  if (ordinal < 0 || ordinal >= driver.devices())
    throw UnavailableError("there is no " + text + ": the NVIDIA driver finds " +
                           std::to_string(driver.devices()));
  const auto ask = [&](Attribute attribute) {
    int value = 0;
    driver.check(driver.DeviceGetAttribute(&value, attribute, ordinal), "asking about " + text);
    return value;
  };
  std::array<char, 256> name{};
  driver.check(driver.DeviceGetName(name.data(), name.size(), ordinal), "asking about " + text);
  return {name.data(), 10 * ask(Attribute::capability_major) + ask(Attribute::capability_minor),
          ask(Attribute::multiprocessors)};
}

Uuid Device::uuid(Ordinal ordinal) {
  Uuid uuid{};
  const auto& driver = Driver::get();
  driver.check(driver.DeviceGetUuid(&uuid, ordinal),
               "asking for the UUID of GPU " + std::to_string(ordinal));
  return uuid;
}

bool Device::has_kernels(int architecture) { return !suitable(architecture).empty(); }

Device::Device(Ordinal ordinal) : ordinal_(ordinal), facts_(ask(ordinal)) {
  const auto& driver = Driver::get();
  driver.check(driver.DevicePrimaryCtxRetain(&context_, ordinal),
               "using GPU " + std::to_string(ordinal));
}

/// At the first launch: what only copies needs none.
void Device::load_modules() {
  const auto text = "GPU " + std::to_string(ordinal_) + ", " + name();
  const auto found = suitable(architecture());
  if (found.empty())
    throw UnavailableError(images().empty() ? "this build of Ronde has no CUDA kernels"
                                            : "this build of Ronde has no kernels for " + text +
                                                  " (sm_" + std::to_string(architecture()) + ")");
  const auto& driver = Driver::get();
  for (const auto& [file, image] : found) {
    Module module = nullptr;
    driver.check(driver.ModuleLoadData(&module, image.cubin),
                 "loading the kernels of " + std::string(file) + " for " + text);
    modules_.push_back(module);
  }
}

Device::Current::Current(const Device& device) {
  const auto& driver = Driver::get();
  driver.check(driver.CtxPushCurrent(device.context_),
               "making GPU " + std::to_string(device.ordinal_) + " current");
}

Device::Current::~Current() {
  Context context = nullptr;
  Driver::get().CtxPopCurrent(&context);
}

/// At most as many as run at once: the kernels loop over what is left.
unsigned Device::blocks_for(std::string_view kernel, std::size_t items) {
  const std::size_t wanted = (items + kThreads - 1) / kThreads;
  const auto most = static_cast<std::size_t>(multiprocessors() * find(kernel).blocks);
  return static_cast<unsigned>(std::clamp<std::size_t>(wanted, 1, most));
}

Device::Kernel Device::find(std::string_view kernel) {
  const std::lock_guard lock(mutex_);
  if (const auto found = kernels_.find(kernel); found != kernels_.end()) return found->second;
  const Current current(*this);
  const auto& driver = Driver::get();
  if (modules_.empty()) load_modules();
  const std::string name(kernel);
  for (auto* const module : modules_) {
    Function function = nullptr;
    if (driver.ModuleGetFunction(&function, module, name.c_str()) != Status::success) continue;
    int blocks = 0;
    driver.check(driver.OccupancyMaxActiveBlocksPerMultiprocessor(&blocks, function, kThreads, 0),
                 "asking how many blocks of " + name + " run at once");
    return kernels_[name] = {function, std::max(blocks, 1)};
  }
  throw Error("there is no kernel " + name);
}

void Device::launch_blocks(StreamHandle stream, std::string_view kernel, unsigned blocks,
                           const void* arguments, std::size_t bytes) {
  const Current current(*this);
  const auto& driver = Driver::get();
  // In one buffer whose length the driver is told.
  const auto is = [](std::uintptr_t what) { return reinterpret_cast<void*>(what); };
  constexpr std::uintptr_t kEnd = 0, kBuffer = 1, kSize = 2;
  void* extra[] = {is(kBuffer), const_cast<void*>(arguments), is(kSize), &bytes, is(kEnd)};
  driver.check(driver.LaunchKernel(find(kernel).function, blocks, 1, 1, kThreads, 1, 1, 0, stream,
                                   nullptr, extra),
               "launching " + std::string(kernel));
}

void Device::copy(StreamHandle stream, void* to, const void* from, std::size_t bytes) const {
  if (bytes == 0) return;
  const Current current(*this);
  const auto& driver = Driver::get();
  driver.check(driver.MemcpyAsync(address(to), address(from), bytes, stream),
               "copying " + std::to_string(bytes) + " bytes");
}

void Device::fill(StreamHandle stream, void* to, unsigned char byte, std::size_t bytes) const {
  if (bytes == 0) return;
  const Current current(*this);
  const auto& driver = Driver::get();
  driver.check(driver.MemsetD8Async(address(to), byte, bytes, stream),
               "filling " + std::to_string(bytes) + " bytes");
}

void Device::synchronise(StreamHandle stream) const {
  const Current current(*this);
  const auto& driver = Driver::get();
  driver.check(driver.StreamSynchronize(stream), "waiting for a CUDA stream");
}

// Streams and events ------------------------------------------------------------------------------

Stream::Stream(const Device& device) : device_(device) {
  const Device::Current current(device_);
  const auto& driver = Driver::get();
  driver.check(driver.StreamCreate(&handle_, kNonBlocking), "creating a CUDA stream");
}

Stream::~Stream() {
  give_back(device_, [&](const Driver& driver) { driver.StreamDestroy(handle_); });
}

Event::Event(const Device& device, Time time) : device_(device) {
  const Device::Current current(device_);
  const auto& driver = Driver::get();
  driver.check(driver.EventCreate(&handle_, time == Time::known ? 0 : kDisableTiming),
               "creating a CUDA event");
}

Event::~Event() {
  give_back(device_, [&](const Driver& driver) { driver.EventDestroy(handle_); });
}

void Event::record(StreamHandle stream) {
  const Device::Current current(device_);
  const auto& driver = Driver::get();
  driver.check(driver.EventRecord(handle_, stream), "recording a CUDA event");
}

void Event::order_before(StreamHandle stream) const {
  const Device::Current current(device_);
  const auto& driver = Driver::get();
  driver.check(driver.StreamWaitEvent(stream, handle_, 0), "waiting for a CUDA event");
}

bool Event::reached() const {
  const Device::Current current(device_);
  const auto& driver = Driver::get();
  const auto status = driver.EventQuery(handle_);
  if (status == Status::not_ready) return false;
  driver.check(status, "asking for a CUDA event");
  return true;
}

float Event::since(const Event& earlier) const {
  const Device::Current current(device_);
  const auto& driver = Driver::get();
  float milliseconds = 0;
  driver.check(driver.EventElapsedTime(&milliseconds, earlier.handle_, handle_),
               "asking for the time between CUDA events");
  return milliseconds;
}

void Event::synchronise() const {
  const Device::Current current(device_);
  const auto& driver = Driver::get();
  driver.check(driver.EventSynchronize(handle_), "waiting for a CUDA event");
}

// Memory ------------------------------------------------------------------------------------------

Memory::Memory(const Device& device, Kind kind, std::size_t bytes)
    : device_(device), kind_(kind), bytes_(bytes) {
  if (bytes == 0) return;
  const Device::Current current(device_);
  const auto& driver = Driver::get();
  const auto text = std::to_string(bytes) + " bytes of ";
  if (kind == Kind::device) {
    Address at = 0;
    driver.check(driver.MemAlloc(&at, bytes), "allocating " + text + "memory of " + device.name());
    data_ = reinterpret_cast<std::byte*>(at);
  } else {
    void* at = nullptr;
    driver.check(driver.MemHostAlloc(&at, bytes, 0), "allocating " + text + "pinned memory");
    data_ = static_cast<std::byte*>(at);
  }
}

Memory::~Memory() {
  if (!data_) return;
  give_back(device_, [&](const Driver& driver) {
    if (kind_ == Kind::device)
      driver.MemFree(address(data_));
    else
      driver.MemFreeHost(data_);
  });
}

}  // namespace ronde::cuda
