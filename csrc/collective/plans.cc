#include "collective/plans.h"

#include <algorithm>
#include <cstdio>

#include "collective/execution.h"
#include "collective/piggyback.h"
#include "collective/select.h"

namespace ronde {
namespace {

// Messages on their way at once, at least: enough to keep a link busy while one is being reduced.
constexpr std::size_t kInFlight = 4;

constexpr std::size_t kWorthMeasuring = 4 << 10;
constexpr Link kEthernet{.alpha = 20e-6, .overhead = 5e-6, .beta = 8e-9, .gamma = 2e-10};

std::string text_of(double value, const char* unit) {
  char text[48];
  std::snprintf(text, sizeof text, "%.3g %s", value, unit);
  return text;
}

}  // namespace

std::string text_of(const Link& link) {
  return text_of(link.alpha * 1e6, "us") + " and " + text_of(1e-6 / link.beta, "MB/s");
}

bool Plans::chosen_freely(Collective collective, std::string_view named) const {
  return named.empty() && (settings_.algorithm.empty() ||
                           !settings_.algorithm.contains(std::string(name_of(collective))));
}

const Plans::Plan& Plans::plan(Collective collective, const Layout& layout,
                               std::size_t element_bytes, std::string_view named) {
  Key key{collective, element_bytes, layout.root, layout.chunks, layout.inputs, std::string(named)};
  if (const auto found = plans_.find(key); found != plans_.end()) return found->second;
  if (plans_.size() >= kMost) plans_.clear();
  const std::size_t bytes = layout.chunks.total() * element_bytes;
  const auto& algorithm =
      select(collective, layout, element_bytes, link_for(bytes), settings_, named);
  const auto elements = std::max<std::size_t>(settings_.segment_bytes / element_bytes, 1);
  auto schedule = std::make_shared<Schedule>(segmented(algorithm.build(layout), elements));
  Plan made{&algorithm, std::move(schedule), why(collective, bytes, named)};
  return plans_.emplace(std::move(key), std::move(made)).first->second;
}

std::string Plans::why(Collective collective, std::size_t bytes, std::string_view named) const {
  if (!named.empty()) return "as the call says";
  if (settings_.algorithm.contains(std::string(name_of(collective))))
    return "as RONDE_ALGORITHM says";
  if (collective == Collective::alltoall) return "the first, as the ranks have different lengths";
  if (settings_.deterministic && reduces(collective))
    return "the first that RONDE_DETERMINISTIC=1 allows";
  const bool measured = bytes >= kWorthMeasuring;
  return std::string("the cheapest by the link, ") + (measured ? "measured" : "assumed") + " as " +
         text_of(link_for(bytes));
}

bool Plans::piggybacks(std::size_t bytes, std::size_t element_bytes, int ranks, bool agrees) {
  if (settings_.deterministic) return false;
  const auto found = piggybacks_.find({bytes, element_bytes});
  if (found != piggybacks_.end()) return found->second;
  if (piggybacks_.size() >= kMost) piggybacks_.clear();
  const Link& link = link_for(bytes);
  const Layout layout{
      .rank = 0, .chunks = Chunks::even(bytes / element_bytes, ranks), .inputs = {}};
  const double phase_0 = agrees ? ceil_log2(ranks) * link.alpha : 0.0;
  const auto plain =
      candidates(Collective::allreduce, layout, element_bytes, link, settings_).front();
  return piggybacks_[{bytes, element_bytes}] =
             piggyback_seconds(bytes, ranks, link) < phase_0 + plain.cost.seconds;
}

bool Plans::needs_link(std::size_t bytes) const { return !link_known_ && bytes >= kWorthMeasuring; }

void Plans::set_link(const Link& link) {
  link_ = link;
  link_known_ = true;
  plans_.clear();
  piggybacks_.clear();
}

const Link& Plans::link_for(std::size_t bytes) const {
  return bytes >= kWorthMeasuring ? link_ : kEthernet;
}

std::size_t Plans::in_flight() const {
  const auto travelling = static_cast<std::size_t>(2 * link_.alpha / link_.beta);
  return std::max(kInFlight * settings_.segment_bytes, travelling);
}

}  // namespace ronde
