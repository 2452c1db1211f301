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

// Blocks that a multiprocessor has at once, of the kernels that loop over what is left: as many as
// its threads allow.
constexpr int kBlocksEach = 2048 / kThreads;

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
  if (!device) {
    auto made = std::unique_ptr<Device>(new Device(ordinal));
    made->load(Driver::get());
    device = std::move(made);
  }
  return *device;
}

Device& Device::holding(const void* memory) {
  Ordinal ordinal = 0;
  const auto status =
      Driver::get().PointerGetAttribute(&ordinal, PointerAttribute::device, address(memory));
  if (status != Status::success) throw ArgumentError("the memory is not that of a GPU");
  return get(ordinal);
}

Device::Device(Ordinal ordinal) : ordinal_(ordinal) {}

void Device::load(const Driver& driver) {
  const auto text = "GPU " + std::to_string(ordinal_);
  if (ordinal_ < 0 || ordinal_ >= driver.devices())
    throw UnavailableError("there is no " + text + ": the NVIDIA driver finds " +
                           std::to_string(driver.devices()));
  const auto ask = [&](Attribute attribute) {
    int value = 0;
    driver.check(driver.DeviceGetAttribute(&value, attribute, ordinal_), "to ask about " + text);
    return value;
  };
  std::array<char, 256> name{};
  driver.check(driver.DeviceGetName(name.data(), name.size(), ordinal_), "to ask about " + text);
  name_ = name.data();
  architecture_ = 10 * ask(Attribute::capability_major) + ask(Attribute::capability_minor);
  multiprocessors_ = ask(Attribute::multiprocessors);
  const auto found = suitable(architecture_);
  if (found.empty())
    throw UnavailableError(images().empty()
                               ? "this build of Ronde has no CUDA kernels"
                               : "this build of Ronde has no kernels for " + text + ", " + name_ +
                                     " (sm_" + std::to_string(architecture_) + ")");
  driver.check(driver.DevicePrimaryCtxRetain(&context_, ordinal_), "to use " + text);
  const Current current(*this);
  for (const auto& [file, image] : found) {
    Module module = nullptr;
    driver.check(driver.ModuleLoadData(&module, image.cubin),
                 "to load the kernels of " + std::string(file) + " for " + text);
    modules_.push_back(module);
  }
}

Device::Current::Current(const Device& device) {
  const auto& driver = Driver::get();
  driver.check(driver.CtxPushCurrent(device.context_),
               "to make GPU " + std::to_string(device.ordinal_) + " current");
}

Device::Current::~Current() {
  Context context = nullptr;
  Driver::get().CtxPopCurrent(&context);
}

unsigned Device::blocks_for(std::size_t items) const {
  const std::size_t wanted = (items + kThreads - 1) / kThreads;
  const auto most = static_cast<std::size_t>(multiprocessors_ * kBlocksEach);
  return static_cast<unsigned>(std::clamp<std::size_t>(wanted, 1, most));
}

Function Device::function(std::string_view kernel) {
  const std::lock_guard lock(mutex_);
  if (const auto found = functions_.find(kernel); found != functions_.end()) return found->second;
  const auto& driver = Driver::get();
  static auto& names = *new std::vector<std::unique_ptr<const std::string>>;
  const std::string name(kernel);
  for (auto* const module : modules_) {
    Function function = nullptr;
    if (driver.ModuleGetFunction(&function, module, name.c_str()) != Status::success) continue;
    names.push_back(std::make_unique<const std::string>(name));
    return functions_[*names.back()] = function;
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
  driver.check(driver.LaunchKernel(function(kernel), blocks, 1, 1, kThreads, 1, 1, 0, stream,
                                   nullptr, extra),
               "to launch " + std::string(kernel));
}

void Device::copy(StreamHandle stream, void* to, const void* from, std::size_t bytes) const {
  if (bytes == 0) return;
  const Current current(*this);
  const auto& driver = Driver::get();
  driver.check(driver.MemcpyAsync(address(to), address(from), bytes, stream),
               "to copy " + std::to_string(bytes) + " bytes");
}

void Device::fill(StreamHandle stream, void* to, unsigned char byte, std::size_t bytes) const {
  if (bytes == 0) return;
  const Current current(*this);
  const auto& driver = Driver::get();
  driver.check(driver.MemsetD8Async(address(to), byte, bytes, stream),
               "to fill " + std::to_string(bytes) + " bytes");
}

void Device::synchronise(StreamHandle stream) const {
  const Current current(*this);
  const auto& driver = Driver::get();
  driver.check(driver.StreamSynchronize(stream), "to wait for a CUDA stream");
}

// Streams and events ------------------------------------------------------------------------------

Stream::Stream(const Device& device) : device_(device) {
  const Device::Current current(device_);
  const auto& driver = Driver::get();
  driver.check(driver.StreamCreate(&handle_, kNonBlocking), "to make a CUDA stream");
}

Stream::~Stream() {
  give_back(device_, [&](const Driver& driver) { driver.StreamDestroy(handle_); });
}

Event::Event(const Device& device, Time time) : device_(device) {
  const Device::Current current(device_);
  const auto& driver = Driver::get();
  driver.check(driver.EventCreate(&handle_, time == Time::known ? 0 : kDisableTiming),
               "to make a CUDA event");
}

Event::~Event() {
  give_back(device_, [&](const Driver& driver) { driver.EventDestroy(handle_); });
}

void Event::record(StreamHandle stream) {
  const Device::Current current(device_);
  const auto& driver = Driver::get();
  driver.check(driver.EventRecord(handle_, stream), "to record a CUDA event");
}

void Event::order_before(StreamHandle stream) const {
  const Device::Current current(device_);
  const auto& driver = Driver::get();
  driver.check(driver.StreamWaitEvent(stream, handle_, 0), "to wait for a CUDA event");
}

bool Event::reached() const {
  const Device::Current current(device_);
  const auto& driver = Driver::get();
  const auto status = driver.EventQuery(handle_);
  if (status == Status::not_ready) return false;
  driver.check(status, "to ask for a CUDA event");
  return true;
}

float Event::since(const Event& earlier) const {
  const Device::Current current(device_);
  const auto& driver = Driver::get();
  float milliseconds = 0;
  driver.check(driver.EventElapsedTime(&milliseconds, earlier.handle_, handle_),
               "to ask for the time between CUDA events");
  return milliseconds;
}

void Event::synchronise() const {
  const Device::Current current(device_);
  const auto& driver = Driver::get();
  driver.check(driver.EventSynchronize(handle_), "to wait for a CUDA event");
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
    driver.check(driver.MemAlloc(&at, bytes), "to get " + text + "memory of " + device.name());
    data_ = reinterpret_cast<std::byte*>(at);
  } else {
    void* at = nullptr;
    driver.check(driver.MemHostAlloc(&at, bytes, 0), "to get " + text + "pinned memory");
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
