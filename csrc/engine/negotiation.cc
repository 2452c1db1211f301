// What a queue does in a negotiation: what all ranks have pending runs, what they describe
// differently ends, and so does what some lack for too long.

#include <algorithm>
#include <optional>
#include <string_view>
#include <utility>

#include "collective/exchange.h"
#include "collective/mismatch.h"
#include "core/error.h"
#include "core/text.h"
#include "engine/queue.h"
#include "trace/timeline.h"

namespace ronde {
namespace {

using namespace std::chrono_literals;

constexpr auto kFirstPause = 50us, kLongestPause = 2000us;
// After so many seconds the ranks also state where a call was submitted.
constexpr double kWorthASite = 0.1;

}  // namespace

Task<> Queue::negotiate(Track& track, Operation& operation) {
  recorder().count(Counter::negotiations);
  const Span span(track.lane.recorder(), "negotiate");
  stated_ = submitted_.so_far();
  const auto join = is_joining() ? std::optional(joins_) : std::nullopt;
  const auto now = Clock::now();
  std::vector<Stated> mine;
  for (const auto& call : submitted_.in_order()) {
    if (!call.submission->entry) note(*call.submission);
    Stated stated{.key = call.submission->key(), .fingerprint = call.submission->fingerprint()};
    stated.waited = seconds(now - call.counted);
    if (stated.waited > kWorthASite) stated.site = call.submission->site();
    mine.push_back(std::move(stated));
  }
  const char own = draining_ == Drain::on ? kDrains : static_cast<char>(average_);
  std::string statement = own + text_of(mine);
  const auto texts = co_await exchange_texts(track.lane, operation, std::move(statement));
  std::vector<std::vector<Stated>> statements;
  std::string states;
  std::vector<bool> joined;
  for (const auto& text : texts) {
    states += text.at(0);
    joined.push_back(text[0] == kBySize || text[0] == kByContributing);
    statements.push_back(statement_of(std::string_view(text).substr(1)));
  }
  const auto found = matches(statements, joined);
  // No rank may stop to drain, or be through with its join, before all do: the others would wait
  // for it.
  const bool all_drain = states.find_first_not_of(kDrains) == std::string::npos;
  const bool all_joined = std::ranges::find(joined, false) == joined.end();
  if (found.empty() && all_drain) draining_ = Drain::over;
  // Meanwhile this join may have failed, and another begun.
  const bool joins_still = is_joining() && join == joins_;
  if (found.empty() && all_joined && joins_still) joining_ = Joining::over;
  joined_rounds_ += joins_still;
  end_overdue(statements, joined);
  if (found.empty() && !mine.empty()) recorder().count(Counter::retries);
  pause_ = found.empty() ? std::clamp<Clock::duration>(2 * pause_, kFirstPause, kLongestPause)
                         : Clock::duration();
  resumes_ = Clock::now() + pause_;

  const auto calls = co_await matched(track, operation, found, states);
  Calls equal;
  for (std::size_t i = 0; i < found.size(); ++i) {
    if (!found[i].equal) {
      co_await refuse(track, operation, calls[i]);
    } else if (calls[i]) {
      equal.push_back(calls[i]);
    }
  }
  commit(equal);
}

/// Ends calls that do not run.
void Queue::drop(const Calls& calls, const std::exception_ptr& error) {
  submitted_.begin(calls);
  submitted_.end(calls);
  fail(calls, error);
}

/// Ends a call that the ranks describe differently: with an error on all, and the others go on.
/// `call`: null where this rank has joined.
Task<> Queue::refuse(Track& track, Operation& operation, std::shared_ptr<Submission> call) {
  Calls alone;
  if (call) alone.push_back(call);
  submitted_.begin(alone);
  track.round->running = alone;
  std::string call_text = call ? call->call().text() : "join", site = call ? call->site() : "";
  const auto texts = co_await exchange_texts(track.lane, operation, std::move(call_text));
  const auto sites = co_await exchange_texts(track.lane, operation, std::move(site));
  std::vector<Described> described;
  for (int rank = 0; rank < track.lane.size(); ++rank)
    described.push_back({texts[rank], sites[rank]});
  const auto message = mismatch_message(described, track.lane.members(), track.lane.set());
  track.round->running.clear();
  submitted_.end(alone);
  fail(alone, std::make_exception_ptr(MismatchError(message)));
}

// Missing calls -----------------------------------------------------------------------------------

/// What some ranks have pending and others do not: the first rank warns of it, after a while. What
/// has waited longest ends after too long, on all ranks that have it, with what else the same ranks
/// lack. For the rest time counts anew: a rank that gives up now may have been late for it.
void Queue::end_overdue(std::span<const std::vector<Stated>> statements,
                        const std::vector<bool>& joined) {
  const auto& lane = tracks_[0]->lane;
  const double timeout = lane.settings().stall_timeout;
  const auto all = unmatched(statements, joined);
  std::erase_if(warned_, [&](const auto& key) { return !all.contains(key); });
  if (all.empty()) return;
  warn(all, statements);
  const auto& longest = std::max_element(all.begin(), all.end(), [](const auto& a, const auto& b) {
                          return a.second.waited < b.second.waited;
                        })->second;
  if (timeout <= 0 || longest.waited <= timeout) return;
  const auto is_mine = [&](const auto& each) { return each.second.has_more(lane.rank()); };
  if (std::ranges::any_of(all, is_mine)) lane.control().hooks().stalled();
  const auto now = Clock::now();
  for (const auto& [key, ranks] : all) {
    if (!ranks.has_more(lane.rank())) continue;
    const auto stated = ranks.calls[lane.rank()];
    auto& pending = submitted_.find(key)->pending;
    if (ranks.waited > timeout && ranks.lacking == longest.lacking) {
      const auto& first = pending[ranks.everywhere];
      end(key, ranks.everywhere, stated,
          "waited " + seconds_text(seconds(now - first.since)) +
              " for an asynchronous call that not all ranks have submitted: " +
              first.submission->call().text() +
              missing_table(key, ranks, statements, lane.members()) + "\n(RONDE_STALL_TIMEOUT is " +
              seconds_text(timeout) + ")");
    } else {
      for (auto i = ranks.everywhere; i < stated; ++i) pending[i].counted = now;
    }
  }
}

/// Once of each call that has waited for long.
void Queue::warn(const std::map<std::string, Unmatched>& all,
                 std::span<const std::vector<Stated>> statements) {
  const auto& lane = tracks_[0]->lane;
  const double warning = lane.settings().stall_warning;
  std::string late;
  std::size_t shown = 0;
  for (const auto& [key, ranks] : all) {
    if (warning <= 0 || ranks.waited <= warning || !warned_.insert(key).second) continue;
    if (++shown > kShown) continue;
    const bool mine = ranks.has_more(lane.rank());
    const auto own = mine ? submitted_.find(key)->pending[ranks.everywhere].submission : nullptr;
    late += '\n';
    late += own ? own->call().text() : printable(key);
    late += missing_table(key, ranks, statements, lane.members());
  }
  if (late.empty()) return;
  recorder().count(Counter::stall_warnings);
  if (lane.rank() != 0) return;
  lane.control().hooks().warn("asynchronous calls have waited that not all ranks have submitted:" +
                              late + (shown > kShown ? "\n..." : ""));
}

/// Some of the calls that are pending with a key.
void Queue::end(const std::string& key, std::size_t from, std::size_t to, const std::string& why) {
  const auto& pending = submitted_.find(key)->pending;
  Calls calls;
  for (auto i = from; i < to; ++i) calls.push_back(pending[i].submission);
  drop(calls, std::make_exception_ptr(StalledError(why)));
}

}  // namespace ronde
