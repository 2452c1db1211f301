// What a queue does where ranks have joined.

#include <algorithm>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "collective/exchange.h"
#include "core/error.h"
#include "core/packed.h"
#include "engine/neutral.h"
#include "engine/queue.h"

namespace ronde {

void Queue::require_no_join() const {
  if (!refused_.empty()) throw Error(refused_);
  if (is_joining())
    throw Error("another thread of this rank is in ronde.join on the same process set already");
}

void Queue::join(Join average) {
  require_no_join();
  joining_ = Joining::on;
  ++joins_;
  average_ = average;
  joined_rounds_ = 0;
}

std::uint64_t Queue::end_join() {
  joining_ = Joining::off;
  average_ = Join::no;
  return joined_rounds_;
}

/// This rank's calls, one for each match: where it has joined and lacks one, a neutral one, or null
/// where the ranks differ. What cannot go on without the ranks that have joined ends with an error,
/// and is null too. `states`: of all ranks.
Task<Calls> Queue::matched(Track& track, Operation& operation, std::vector<Match> found,
                           std::string states) {
  const auto& lane = track.lane;
  const auto lacks = [&](const Match& match) {
    return std::ranges::count(match.lacking, lane.rank());
  };
  const auto is_described = [](const Match& match) {
    return match.equal && !match.lacking.empty();
  };
  // All of them before the first is done with: those of a key are known by their number.
  Calls calls;
  std::unordered_map<std::string_view, std::size_t> met;
  for (const auto& match : found) {
    calls.emplace_back();
    if (!lacks(match))
      calls.back() = submitted_.find(match.key)->pending[met[match.key]++].submission;
  }
  if (std::ranges::none_of(found, is_described)) co_return calls;

  Packer mine;
  for (std::size_t i = 0; i < found.size(); ++i) {
    if (is_described(found[i]) && found[i].first == lane.rank())
      mine(description_of(*calls[i], track.lane));
  }
  std::string own = mine.bytes();
  const auto texts = co_await exchange_texts(track.lane, operation, std::move(own));
  std::vector<Unpacker> unpackers(texts.begin(), texts.end());
  const bool by_contributing = states.find(kByContributing) != std::string::npos;
  const bool differ = by_contributing && states.find(kBySize) != std::string::npos;
  for (std::size_t i = 0; i < found.size(); ++i) {
    const auto& lacking = found[i].lacking;
    if (!is_described(found[i])) continue;
    Description description;
    unpackers[static_cast<std::size_t>(found[i].first)](description);
    auto& call = calls[i];
    const auto why = differ ? kSameAverage : refusal(description, lacking, lane.members());
    if (!why.empty()) {
      const auto text = description.call.text() + " cannot be made: " + why;
      if (call) drop({call}, std::make_exception_ptr(MismatchError(text)));
      call.reset();
      continue;
    }
    if (!call) {
      call = neutral_submission(std::move(description));
      submitted_.add_neutral(call);
      note(*call);
    }
    const int ranks = static_cast<int>(lacking.size());
    call->set_joined({ranks, by_contributing ? lane.size() - ranks : 0});
  }
  co_return calls;
}

}  // namespace ronde
