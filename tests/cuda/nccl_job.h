// Ranks of Ronde as threads, connected by NCCL, for the tests of the route.
#pragma once

#include <memory>
#include <mutex>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "collective/communicator.h"
#include "collective/nccl_route.h"
#include "cuda/order.h"
#include "nccl_ranks.h"
#include "transport/inproc.h"

namespace ronde::cuda::testing {

/// What the logs and warnings of all ranks have said.
struct Said {
  std::mutex mutex;
  std::vector<std::string> lines;

  void add(const std::string& line) {
    const std::lock_guard lock(mutex);
    lines.push_back(line);
  }
  bool has(std::string_view part) {
    const std::lock_guard lock(mutex);
    for (const auto& line : lines)
      if (contains(line, part)) return true;
    return false;
  }
};

/// An array on the GPU of a rank, and when it may be touched.
class Array {
 public:
  Array(Device& device, std::span<const std::byte> bytes)
      : stream_(device), memory_(device, stream_, bytes), order_(device), bytes_(bytes.size()) {}

  Buffer buffer() {
    order_.begins_after(stream_);
    return {memory_.data(), bytes_, {MemoryKind::cuda, order_.device().ordinal(), &order_}};
  }
  std::vector<std::byte> bytes() {
    order_.order_before(stream_);
    return memory_.bytes();
  }

  std::size_t size() const { return bytes_; }
  const Stream& stream() const { return stream_; }

  /// After a call that has read it, and without a wait.
  void overwrite() {
    order_.order_before(stream_);
    if (bytes_) order_.device().fill(stream_, memory_.data(), 0xcc, bytes_);
  }

 private:
  const Stream stream_;  // the caller's
  const OnDevice memory_;
  Order order_;
  const std::size_t bytes_;
};

struct Member {
  int rank, size;
  std::shared_ptr<Control> control;
  std::unique_ptr<Communicator> set;
  Device& device;

  Array array(std::span<const std::byte> bytes) const { return {device, bytes}; }
};

inline Settings quick() {
  Settings settings;
  settings.spin = false;
  settings.stall_warning = 60;
  settings.stall_timeout = 120;
  return settings;
}

struct Job {
  Faults faults{};
  Settings settings = quick();
  bool one_gpu = false;  // all ranks use it
  Said* said = nullptr;

  void run(int size, const std::function<void(Member&)>& program) const {
    InprocWorld world(size, faults);
    std::vector<int> everybody(static_cast<std::size_t>(size));
    std::iota(everybody.begin(), everybody.end(), 0);
    in_parallel(size, [&](int rank) {
      Hooks hooks;
      if (said) {
        hooks.log = [this](const std::string& line) { said->add(line); };
        hooks.warn = hooks.log;
      }
      auto control = std::make_shared<Control>(world.transport(rank, 0), hooks);
      auto set =
          std::make_unique<Communicator>(control, world.transport(rank, 1), 0, everybody, settings);
      set->use_nccl();
      Member member{rank, size, control, std::move(set), device_of(one_gpu ? 0 : rank)};
      program(member);
    });
  }
};

/// A call that goes over NCCL. Returns whether it has.
template <class Begin>
bool over_nccl(Communicator& set, const Call& call, Begin begin) {
  bool done = false;
  const auto task = [&](Routes& routes, Operation& operation) -> Task<> {
    const auto make = [](bool& result, Task<bool> made) -> Task<> {
      const bool value = co_await std::move(made);
      result = value;
    };
    return make(done, begin(routes.lane(), operation));
  };
  set.run(call, task, [] { return std::vector<Outline>(); });
  return done;
}

inline bool allreduce(Communicator& set, const Call& call, std::span<const Piece> pieces,
                      const Reduction& reduction = {}) {
  return over_nccl(set, call, [&](Lane& lane, Operation& operation) {
    return allreduce_over_nccl(lane, operation, pieces, reduction, {});
  });
}

inline bool reduce_scatter(Communicator& set, const Call& call, ConstBuffer input, Buffer output,
                           const Chunks& chunks, const Reduction& reduction = {}) {
  return over_nccl(set, call, [&](Lane& lane, Operation& operation) {
    return reduce_scatter_over_nccl(lane, operation, input, output, chunks, reduction, {});
  });
}

inline bool reduce(Communicator& set, const Call& call, const Piece& piece, int root,
                   const Reduction& reduction = {}) {
  return over_nccl(set, call, [&](Lane& lane, Operation& operation) {
    return reduce_over_nccl(lane, operation, piece, reduction, root, {});
  });
}

inline bool broadcast(Communicator& set, const Call& call, Buffer data, int root) {
  return over_nccl(set, call, [&](Lane& lane, Operation& operation) {
    return broadcast_over_nccl(lane, operation, data, root, {});
  });
}

inline Call named(const std::string& kind) {
  Call call;
  call.kind = kind;
  return call;
}

}  // namespace ronde::cuda::testing
