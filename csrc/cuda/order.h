// When a call may touch memory of a device that the caller's streams write and read.
//
//   the caller's stream   ... writes | ready                     done | reads ...
//   a stream of ours                   waits | copies, kernels |
//
// The stream of ours does not wait for `ready`: something else may be enqueued there that must not
// wait for it. Who moves the call asks whether it has come so far.
//
// Waits for the end have no deadline, as memory must not go before. They need none: when a call has
// enqueued its last, only copies, kernels and operations of NCCL are before the end. The latter may
// wait for a rank that is lost, but all of them end when a failure becomes known to this process
// (NcclConnection::abandon), and until then it may be late only. (A process of which no thread is
// in a call does not learn of it. Its launcher ends it then.)
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "cuda/device.h"

namespace ronde::cuda {

/// Of arrays of the caller's on one device.
class Order {
 public:
  explicit Order(Device& device) : device_(device) {}
  /// Waits, if there is something to wait for that no stream of the caller's has been told of.
  ~Order();
  Order(const Order&) = delete;
  Order& operator=(const Order&) = delete;

  Device& device() const { return device_; }

  /// What is enqueued on `stream` by now comes before.
  void begins_after(StreamHandle stream);
  /// Whether all that comes before has run.
  bool begun() const;
  /// What is enqueued on `stream` from now on comes after it.
  void begin_on(StreamHandle stream) const;

  /// What touches the memory is enqueued on `stream` by now: all that is there comes before the
  /// end.
  void ends_after(StreamHandle stream);
  /// What is enqueued on `stream` from now on comes after the end. Nothing happens without an end.
  void order_before(StreamHandle stream);
  /// Waits for the end.
  void wait();

 private:
  Device& device_;
  // The caller may be another thread than who moves the call. Nobody waits for a GPU with it.
  mutable std::mutex mutex_;
  std::vector<std::unique_ptr<Event>> ready_;
  std::map<StreamHandle, std::shared_ptr<Event>> done_;
  bool told_ = true;  // a stream of the caller's, or who has waited
};

/// Where a call enqueues what it does on a GPU.
struct Queue {
  Device& device;
  StreamHandle stream;
};

/// A stream for the copies and kernels of a call. There are a few of them, which calls take in
/// turn, so that one does not wait for the other.
StreamHandle stream_for_call(Device& device);

/// A stream that nobody else is given until this ends. What is enqueued there may wait for other
/// ranks: calls in streams that they share would wait for each other, on each rank for another. It
/// is never destroyed, as memory may be in its order; somebody else is given it if all on it has
/// run.
class OwnStream {
 public:
  explicit OwnStream(Device& device);
  ~OwnStream();
  OwnStream(const OwnStream&) = delete;
  OwnStream& operator=(const OwnStream&) = delete;

  operator StreamHandle() const { return *stream_; }

 private:
  Device& device_;
  std::unique_ptr<Stream> stream_;
};

}  // namespace ronde::cuda
