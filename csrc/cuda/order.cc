#include "cuda/order.h"

#include <algorithm>
#include <array>

#include "core/error.h"

namespace ronde::cuda {
namespace {

constexpr std::size_t kStreams = 4;

struct Streams {
  explicit Streams(const Device& device) {
    for (auto& stream : all) stream = std::make_unique<Stream>(device);
  }
  std::array<std::unique_ptr<Stream>, kStreams> all;
  std::size_t next = 0;
};

}  // namespace

Order::~Order() {
  if (told_) return;
  try {
    wait();
  } catch (...) {
    // A device that is lost touches nothing any more.
  }
}

void Order::begins_after(StreamHandle stream) {
  auto event = std::make_unique<Event>(device_);
  event->record(stream);
  const std::lock_guard lock(mutex_);
  ready_.push_back(std::move(event));
}

bool Order::begun() const {
  const std::lock_guard lock(mutex_);
  return std::ranges::all_of(ready_, [](const auto& event) { return event->reached(); });
}

void Order::begin_on(StreamHandle stream) const {
  const std::lock_guard lock(mutex_);
  for (const auto& event : ready_) event->order_before(stream);
}

void Order::ends_after(StreamHandle stream) {
  const std::lock_guard lock(mutex_);
  auto& event = done_[stream];
  if (!event) event = std::make_shared<Event>(device_);
  event->record(stream);
  told_ = false;
}

void Order::order_before(StreamHandle stream) {
  const std::lock_guard lock(mutex_);
  for (const auto& [ours, event] : done_) event->order_before(stream);
  told_ = true;
}

void Order::wait() {
  std::unique_lock lock(mutex_);
  const auto done = done_;
  told_ = true;  // who ends something meanwhile is not waited for
  lock.unlock();
  for (const auto& [ours, event] : done) event->synchronise();
}

namespace {

/// Streams that nobody has. Never destroyed, as the driver may be gone by then.
struct Free {
  static Free& get() {
    static auto& free = *new Free;
    return free;
  }
  std::mutex mutex;
  std::map<Ordinal, std::vector<std::unique_ptr<Stream>>> streams;
};

}  // namespace

OwnStream::OwnStream(Device& device) : device_(device) {
  auto& [mutex, streams] = Free::get();
  const std::lock_guard lock(mutex);
  auto& free = streams[device.ordinal()];
  if (free.empty()) {
    stream_ = std::make_unique<Stream>(device);
  } else {
    stream_ = std::move(free.back());
    free.pop_back();
  }
}

OwnStream::~OwnStream() {
  try {
    Event last(device_);
    last.record(*stream_);
    if (last.reached()) {
      auto& [mutex, streams] = Free::get();
      const std::lock_guard lock(mutex);
      streams[device_.ordinal()].push_back(std::move(stream_));
    }
  } catch (const Error&) {  // the device is lost, or the driver has ended
  }
  static_cast<void>(stream_.release());  // it may never come to its end
}

StreamHandle stream_for_call(Device& device) {
  // Never destroyed, as the driver may be gone by then.
  static auto& mutex = *new std::mutex;
  static auto& streams = *new std::map<Ordinal, Streams>;
  const std::lock_guard lock(mutex);
  auto& of = streams.try_emplace(device.ordinal(), device).first->second;
  return *of.all[of.next++ % kStreams];
}

}  // namespace ronde::cuda
