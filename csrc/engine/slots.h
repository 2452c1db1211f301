// Which calls ran together, and which came after them: what the ranks remember instead of
// negotiating again. All ranks have the same slots, as all run the same calls in the same order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "engine/submitted.h"

namespace ronde {

class Slots {
 public:
  /// The slots that ran after the last one, the last time, as far as all of their calls are pending
  /// now; so many at most.
  std::vector<Calls> next(std::size_t most) const;

  /// These calls run now, after those before. They are pending still.
  void note(const Calls& calls, Submitted& submitted);

 private:
  /// The n-th call that is pending with a key.
  struct Place {
    std::shared_ptr<Submitted::Key> key;
    std::size_t number;
  };
  static constexpr int kNone = -1;
  struct Slot {
    std::vector<Place> places;
    int next = kNone;
  };
  // Of all slots together, in places: then all are forgotten.
  static constexpr std::size_t kMost = 8 << 10;

  Calls pending(const Slot& slot) const;
  int after_last() const { return last_ == kNone ? first_ : slots_[last_].next; }
  int& after_last() { return last_ == kNone ? first_ : slots_[last_].next; }
  int find(const Calls& calls, Submitted& submitted);

  std::vector<Slot> slots_;
  std::size_t places_ = 0;                          // of all of them
  std::unordered_map<std::uint64_t, int> numbers_;  // by a hash of the keys of the calls
  int first_ = kNone;
  int last_ = kNone;  // that has run
};

}  // namespace ronde
