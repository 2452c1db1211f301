#include "engine/slots.h"

#include <algorithm>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "core/hash.h"

namespace ronde {

std::vector<Calls> Slots::next(std::size_t most) const {
  std::vector<Calls> all;
  std::unordered_set<const Submission*> taken;  // a call is in one of them only
  const auto take = [&](const auto& call) { return taken.insert(call.get()).second; };
  for (int i = after_last(); i != kNone && all.size() < most; i = slots_[i].next) {
    auto calls = pending(slots_[i]);
    if (calls.empty()) break;
    // Mostly there is one.
    if (all.size() == 1) std::for_each(all[0].begin(), all[0].end(), take);
    if (!all.empty() && !std::all_of(calls.begin(), calls.end(), take)) break;
    all.push_back(std::move(calls));
  }
  return all;
}

/// All of its calls, or none if not all of them are pending.
Calls Slots::pending(const Slot& slot) const {
  const auto is_pending = [](const Place& place) {
    return place.number < place.key->pending.size();
  };
  // Mostly it is the last that is missing.
  if (!std::all_of(slot.places.rbegin(), slot.places.rend(), is_pending)) return {};
  Calls calls;
  for (const auto& [key, at] : slot.places) calls.push_back(key->pending[at].submission);
  return calls;
}

void Slots::note(const Calls& calls, Submitted& submitted) {
  const int expected = after_last();
  const auto is_expected = [&](const Place& place, const std::shared_ptr<Submission>& call) {
    const auto& same = place.key->pending;
    return place.number < same.size() && same[place.number].submission == call;
  };
  if (expected != kNone &&
      std::equal(slots_[expected].places.begin(), slots_[expected].places.end(), calls.begin(),
                 calls.end(), is_expected)) {
    last_ = expected;
    return;
  }
  const int number = find(calls, submitted);
  after_last() = number;
  last_ = number;
}

/// The slot of these calls, a new one if need be. (If two slots ever had one hash, they would
/// negotiate.)
int Slots::find(const Calls& calls, Submitted& submitted) {
  Hash hash;
  for (const auto& call : calls) hash.add(call->key());
  if (const auto found = numbers_.find(hash.value()); found != numbers_.end()) return found->second;
  if (places_ + calls.size() > kMost) {
    *this = {};
    submitted.sweep();
  }
  Slot slot;
  std::unordered_map<std::string_view, std::size_t> met;
  for (const auto& call : calls)
    slot.places.push_back({submitted.find(call->key()), met[call->key()]++});
  places_ += calls.size();
  slots_.push_back(std::move(slot));
  return numbers_[hash.value()] = static_cast<int>(slots_.size()) - 1;
}

}  // namespace ronde
