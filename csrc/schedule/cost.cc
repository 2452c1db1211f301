#include "schedule/cost.h"

#include <algorithm>
#include <vector>

namespace ronde {
namespace {

/// What one rank does in one step.
struct Traffic {
  int sends = 0, receives = 0;
  std::size_t sent = 0, received = 0, reduced = 0;
};

std::vector<Traffic> traffic_of(const Schedule& schedule) {
  std::vector<Traffic> traffic(schedule.steps);
  for (const Action& action : schedule.actions) {
    Traffic& step = traffic[action.step];
    if (action.verb == Verb::send) {
      ++step.sends;
      step.sent += action.range.count;
    }
    if (action.verb == Verb::recv || action.verb == Verb::recv_reduce) {
      ++step.receives;
      step.received += action.range.count;
    }
    if (action.verb == Verb::reduce || action.verb == Verb::recv_reduce) {
      step.reduced += action.range.count;
    }
  }
  return traffic;
}

}  // namespace

Cost cost_of(const Schedule& schedule, std::size_t item_bytes, const Link& link) {
  Cost cost;
  cost.steps = schedule.steps;
  int further = 0;
  std::size_t carried = 0;
  for (const Traffic& step : traffic_of(schedule)) {
    const int messages = std::max(step.sends, step.receives);
    cost.messages += messages;
    further += std::max(messages - 1, 0);
    cost.sent += step.sent;
    cost.received += step.received;
    cost.reduced += step.reduced;
    carried += std::max(step.sent, step.received);
  }
  const auto bytes = [&](std::size_t items) { return static_cast<double>(items * item_bytes); };
  cost.seconds = cost.steps * link.alpha + further * link.overhead + bytes(carried) * link.beta +
                 bytes(cost.reduced) * link.gamma;
  return cost;
}

}  // namespace ronde
