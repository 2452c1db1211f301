// How calls go, in words: a line for each kind of call, where somebody reads it (RONDE_LOG=debug).

#include <cstdio>
#include <string>

#include "collective/communicator.h"
#include "collective/select.h"

namespace ronde {
namespace {

std::string text_of(double value, const char* unit) {
  char text[48];
  std::snprintf(text, sizeof text, "%.3g %s", value, unit);
  return text;
}

std::string text_of(const Link& link) {
  return text_of(link.alpha * 1e6, "us") + " and " + text_of(1e-6 / link.beta, "MB/s");
}

}  // namespace

/// `how` is said once for each kind of call: names differ, and what is compared besides is long.
void Communicator::explain(const Call& call, const std::string& how) {
  Call kind = call;
  kind.name.clear();
  kind.detail.clear();
  auto line = kind.text() + ": " + how;
  if (explained_.size() >= kMaxPlans) explained_.clear();
  if (explained_.insert(line).second) control_->hooks().log(line);
}

void Communicator::explain_memory(const Call& call, const std::string& route) {
  const auto ranks = std::to_string(board_->size());
  const auto here = across_ ? "in the memory of each machine first, among its " + ranks + " ranks"
                            : "in shared memory, as all " + ranks + " ranks are on one machine";
  explain(call, here + (route.empty() ? "" : ", ") + route);
}

void Communicator::explain_plan(const Call& call, Collective collective, const Plan& plan,
                                std::size_t bytes, std::string_view named) {
  if (size() == 1) return;
  const std::string name(name_of(collective));
  std::string why;
  if (!named.empty() || settings_.algorithm.contains(name)) {
    why = named.empty() ? "as RONDE_ALGORITHM says" : "as the call says";
  } else if (collective == Collective::alltoall) {
    why = "the first, as the ranks have different lengths";
  } else if (settings_.deterministic && reduces(collective)) {
    why = "the first that RONDE_DETERMINISTIC=1 allows";
  } else {
    why = "the cheapest by the link, " + std::string(is_long(bytes) ? "measured" : "assumed") +
          " as " + text_of(link_for(bytes));
  }
  explain(call, "over the network, " + name + " of " + std::to_string(bytes) + " bytes by " +
                    std::string(plan.algorithm->name) + " in " +
                    std::to_string(plan.schedule->steps) + " steps and " +
                    std::to_string(plan.schedule->actions.size()) + " actions, segments of up to " +
                    std::to_string(settings_.segment_bytes) + " bytes; " + why);
}

void Communicator::explain_link() {
  if (explains_) control_->hooks().log("the link between ranks: " + text_of(link_));
}

}  // namespace ronde
