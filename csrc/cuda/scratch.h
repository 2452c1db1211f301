// Memory for what is enqueued on a stream: of a device, or pinned memory of the host. What is given
// back is kept for others, as the driver takes long to find memory and waits for the device to free
// it.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "cuda/device.h"

namespace ronde::cuda {

class ScratchPool;

/// Some of it, for one stream. It is given back when this ends, even while the stream is still at
/// work with it: all that uses it has only to be enqueued before.
class Scratch {
 public:
  Scratch() = default;
  Scratch(Scratch&& other) noexcept { *this = std::move(other); }
  Scratch& operator=(Scratch&& other) noexcept;
  ~Scratch();

  /// Nothing that is enqueued uses it any more: then no event is needed when it is given back.
  void mark_idle() { idle_ = true; }

  /// All that uses it on its stream is enqueued by now, and the stream may end before this does.
  void end_use();
  /// After that: what is enqueued on another stream from now on comes later.
  void order_before(StreamHandle stream) const { block_->released.order_before(stream); }
  /// Gives it back now, with what uses it enqueued on this stream by now: one of the caller's,
  /// which may end too, and never takes memory here.
  void give_back_after(StreamHandle stream);

  std::byte* data() const;
  std::size_t size() const { return bytes_; }

 private:
  friend class ScratchPool;

  struct Block {
    Block(const Device& device, Memory::Kind kind, std::size_t bytes)
        : memory(device, kind, bytes), released(device) {}

    Memory memory;
    StreamHandle stream = nullptr;  // of ours that it is used on, or was last; null for another
    Event released;                 // recorded there when it was given back
  };

  Scratch(ScratchPool& pool, std::unique_ptr<Block> block, std::size_t bytes);
  void give_back();

  ScratchPool* pool_ = nullptr;
  std::unique_ptr<Block> block_;
  std::size_t bytes_ = 0;
  bool idle_ = false;
};

/// What scratch comes from and goes back to. Any thread may use it. It outlives what it gives out.
class ScratchPool {
 public:
  ScratchPool(const Device& device, Memory::Kind kind);
  ~ScratchPool();
  ScratchPool(const ScratchPool&) = delete;
  ScratchPool& operator=(const ScratchPool&) = delete;

  /// The one of this device, which all share.
  static ScratchPool& of(const Device& device, Memory::Kind kind);

  /// So many bytes, aligned to 256, for use on `stream`, in a block of up to twice the size. Before
  /// a stream is destroyed, its scratch is given back and it is synchronised.
  ///
  /// Memory of the device that was given back on the same stream can be reused at once. Memory that
  /// was given back on another one can as soon as that stream has come so far, and so can all
  /// pinned memory, as the host waits for no stream before it touches it.
  ///
  /// If the driver has no more, what is kept is freed, and it is asked again: at first what nothing
  /// uses any more, then all, but for what a stream of the caller's still uses, which may wait for
  /// this thread. Throws the driver's error if that does not help.
  Scratch take(StreamHandle stream, std::size_t bytes);

  /// The same as memory of its own, which does not come back.
  std::unique_ptr<Memory> memory(std::size_t bytes);

  /// In bytes.
  struct Usage {
    std::size_t in_use, cached;
  };
  Usage usage() const;

  /// Waits until nothing uses what is kept, and frees it.
  void trim() { trim(Kept::all); }

 private:
  friend class Scratch;
  using Block = Scratch::Block;
  using Blocks = std::vector<std::unique_ptr<Block>>;

  enum class Kept { reached, on_our_streams, all };
  /// What the streams have not come to is waited for.
  void trim(Kept which);

  std::unique_ptr<Block> find(StreamHandle stream, std::size_t bytes);
  template <class Allocated>
  std::unique_ptr<Allocated> allocate(std::size_t bytes);
  void give_back(std::unique_ptr<Block> block, bool idle) noexcept;
  void give_back(std::unique_ptr<Block> block, StreamHandle callers) noexcept;
  static bool record(Block& block, StreamHandle stream) noexcept;
  void keep(std::unique_ptr<Block> block, bool recorded) noexcept;

  const Device& device_;
  const Memory::Kind kind_;
  mutable std::mutex mutex_;
  std::map<std::size_t, Blocks> cached_;  // by their size
  Usage usage_{};
};

}  // namespace ronde::cuda
