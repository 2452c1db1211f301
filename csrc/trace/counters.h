// What is counted: one table, from which Python's dictionary, the Prometheus text and the page of
// the documentation come.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

namespace ronde {

enum class Counter {
  calls,
  asynchronous_calls,
  failed_calls,
  bytes_in_shared_memory,
  bytes_over_network,
  bytes_piggybacked,
  bytes_compressed,
  bytes_over_nccl,
  bytes_sent,
  waits,
  wait_nanoseconds,
  stall_warnings,
  slots,
  slot_calls,
  slot_bytes,
  slots_replayed,
  negotiations,
  retries,
};
inline constexpr std::size_t kCounters = 18;

struct CounterInfo {
  Counter counter;
  const char* name;
  double unit;  // that the name is in, in terms of what is counted
  const char* meaning;
};

std::span<const CounterInfo, kCounters> counter_table();

/// Those of one lane. One thread at a time counts; any may read.
class Counts {
 public:
  void add(Counter counter, std::uint64_t more) {
    auto& value = values_[static_cast<std::size_t>(counter)];
    // No other thread writes, and a locked instruction would be felt by short calls.
    value.store(value.load(std::memory_order_relaxed) + more, std::memory_order_relaxed);
  }
  std::uint64_t get(Counter counter) const {
    return values_[static_cast<std::size_t>(counter)].load(std::memory_order_relaxed);
  }

 private:
  std::array<std::atomic<std::uint64_t>, kCounters> values_;
};

}  // namespace ronde
