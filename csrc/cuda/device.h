// A GPU: its context, its kernels, its streams and memory.
//
// Whatever is enqueued on a stream runs in order, and after the call has returned. What is enqueued
// on different streams has no order but that of events.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "cuda/driver.h"

namespace ronde::cuda {

class Device {
 public:
  /// The device of that number, in its primary context, which frameworks use too. Throws
  /// UnavailableError if there is no driver or no such device.
  static Device& get(Ordinal ordinal);
  /// The device that holds this memory. Throws ArgumentError if none does.
  static Device& holding(const void* memory);
  /// The current one of this thread; the first where none is.
  static Device& current();

  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  struct Facts {
    std::string name;
    int architecture;  // 90 for capability 9.0
    int multiprocessors;
  };
  /// What the driver says of a device, which is left alone.
  static Facts ask(Ordinal ordinal);
  /// By which processes and machines know that they use the same one.
  static Uuid uuid(Ordinal ordinal);
  /// Whether this build has kernels for such devices.
  static bool has_kernels(int architecture);

  Ordinal ordinal() const { return ordinal_; }
  const std::string& name() const { return facts_.name; }
  int architecture() const { return facts_.architecture; }
  int multiprocessors() const { return facts_.multiprocessors; }

  /// While it lives, this is the current device of the thread.
  class Current {
   public:
    explicit Current(const Device& device);
    ~Current();
    Current(const Current&) = delete;
    Current& operator=(const Current&) = delete;
  };

  /// Enqueues a kernel of this name, for so many items, of which each thread takes one or more.
  /// Throws UnavailableError if this build has no kernels for the device.
  template <class Arguments>
  void launch(StreamHandle stream, std::string_view kernel, std::size_t items,
              const Arguments& arguments) {
    launch_blocks(stream, kernel, blocks_for(kernel, items), &arguments, sizeof arguments);
  }
  /// The same with so many blocks.
  void launch_blocks(StreamHandle stream, std::string_view kernel, unsigned blocks,
                     const void* arguments, std::size_t bytes);

  void copy(StreamHandle stream, void* to, const void* from, std::size_t bytes) const;
  void fill(StreamHandle stream, void* to, unsigned char byte, std::size_t bytes) const;
  /// Waits until all that was enqueued has run.
  void synchronise(StreamHandle stream) const;

 private:
  explicit Device(Ordinal ordinal);
  void load_modules();
  struct Kernel {
    Function function;
    int blocks;  // that a multiprocessor has at once
  };
  unsigned blocks_for(std::string_view kernel, std::size_t items);
  Kernel find(std::string_view kernel);

  const Ordinal ordinal_;
  const Facts facts_;
  Context context_ = nullptr;
  std::mutex mutex_;  // for what follows
  std::vector<Module> modules_;
  std::map<std::string, Kernel, std::less<>> kernels_;
};

/// A stream of its own.
class Stream {
 public:
  explicit Stream(const Device& device);
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  operator StreamHandle() const { return handle_; }

  void synchronise() const { device_.synchronise(handle_); }

 private:
  const Device& device_;
  StreamHandle handle_ = nullptr;
};

/// A position in a stream, which others can wait for.
class Event {
 public:
  enum class Time { unknown, known };

  /// Events that know their time cost a little more.
  explicit Event(const Device& device, Time time = Time::unknown);
  ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  void record(StreamHandle stream);
  /// What is enqueued on `stream` from now on runs after it.
  void order_before(StreamHandle stream) const;
  /// Whether the stream has come to it.
  bool reached() const;
  /// Milliseconds from an earlier event. Both know their time and have been reached.
  float since(const Event& earlier) const;
  /// Waits until it has.
  void synchronise() const;

 private:
  const Device& device_;
  EventHandle handle_ = nullptr;
};

/// Memory of a device, or of the host where devices can copy to and from it at full speed.
class Memory {
 public:
  enum class Kind { device, pinned };

  Memory(const Device& device, Kind kind, std::size_t bytes);
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  std::byte* data() const { return data_; }
  std::size_t size() const { return bytes_; }

 private:
  const Device& device_;
  const Kind kind_;
  const std::size_t bytes_;
  std::byte* data_ = nullptr;
};

}  // namespace ronde::cuda
