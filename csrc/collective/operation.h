// One call of a collective under way, and all that is its own.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "collective/call.h"
#include "core/bytes.h"
#include "core/keep.h"
#include "core/reduction.h"
#include "trace/recorder.h"

namespace ronde {

/// Whether a call is ronde.join, of a rank that has no more data; and what averages are divided by
/// then: the number of all ranks, or of those that contribute.
enum class Join : char { no = '-', size = 's', contributing = 'c' };

/// Of a call in which ranks take part that have joined.
struct Joined {
  int ranks = 0;    // that do, with neutral values
  int divisor = 0;  // of averages, if it is not the number of all ranks
};

class Operation {
 public:
  /// `what` outlives the operation. `waits_long`: it waits for the other ranks without a limit.
  explicit Operation(const Call& what, bool waits_long = false) : call(what), patient(waits_long) {}
  Operation(const Operation&) = delete;
  Operation& operator=(const Operation&) = delete;
  ~Operation() { entry.end(CallState::failed); }  // unless it has ended well

  const Call& call;
  bool patient;
  std::function<std::string()> about;  // what reports say of it besides
  std::uint64_t sequence = 0;          // in its lane: of the agreement that it has come to
  bool agreed = false;                 // on all of it: no further step needs an agreement
  Join join = Join::no;
  Joined joined;
  Entry entry;  // of a blocking call

  /// A reduction as the ranks do it.
  Reduction among_ranks(Reduction reduction) const {
    if (joined.divisor && reduction.divisor != 1.0) reduction.divisor = joined.divisor;
    return reduction;
  }

  /// Memory that lives as long as the operation, and for ever if that is given up.
  Bytes allocate(std::size_t bytes) {
    Bytes memory(bytes);
    memory_.push_back(memory.owner());
    return memory;
  }
  template <class T>
  std::span<T> zeros(std::size_t count) {
    const Bytes memory = allocate(count * sizeof(T));
    std::fill_n(memory.as<T>(), count, T{});
    return {memory.as<T>(), count};
  }

  /// The same for memory that is there already.
  void keep(std::shared_ptr<const void> memory) { memory_.push_back(std::move(memory)); }

  /// How much memory there is, in allocations.
  std::size_t held() const { return memory_.size(); }
  /// Nothing is needed any more of what has come since so much was held.
  void release(std::size_t held = 0) { memory_.resize(held); }

  /// Messages may still be under way.
  void give_up() {
    for (auto& memory : std::exchange(memory_, {})) keep_until_exit(std::move(memory));
  }

 private:
  std::vector<std::shared_ptr<const void>> memory_;
};

}  // namespace ronde
