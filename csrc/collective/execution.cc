#include "collective/execution.h"

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "kernels/kernels.h"

namespace ronde {
namespace {

bool receives(Verb verb) { return verb == Verb::recv || verb == Verb::recv_reduce; }
bool writes(Verb verb) { return verb != Verb::send; }

/// Cuts one action into its segments, in order.
class Cutter {
 public:
  Cutter(const Action& action, std::size_t limit) : action_(action), limit_(limit) {}

  bool empty() const { return done_ == action_.range.count; }

  Action next() {
    Action piece = action_;
    piece.range.offset += done_;
    piece.source.offset += done_;
    piece.range.count = piece.source.count = std::min(limit_, action_.range.count - done_);
    done_ += piece.range.count;
    return piece;
  }

 private:
  const Action& action_;
  const std::size_t limit_;
  std::size_t done_ = 0;
};

}  // namespace

Schedule segmented(const Schedule& schedule, std::size_t elements) {
  Schedule result;
  result.scratch = schedule.scratch;
  result.steps = schedule.steps;
  const auto& actions = schedule.actions;
  for (std::size_t i = 0; i < actions.size(); ++i) {
    Cutter first(actions[i], elements);
    const bool pair = actions[i].verb == Verb::send && i + 1 < actions.size() &&
                      receives(actions[i + 1].verb) && actions[i + 1].step == actions[i].step;
    if (!pair) {
      while (!first.empty()) result.actions.push_back(first.next());
      continue;
    }
    Cutter second(actions[++i], elements);
    while (!first.empty() || !second.empty()) {
      if (!first.empty()) result.actions.push_back(first.next());
      if (!second.empty()) result.actions.push_back(second.next());
    }
  }
  return result;
}

Execution::Execution(Transport& transport, std::shared_ptr<const Schedule> schedule,
                     Operands operands, Element element, int tag, Depth depth, std::string what)
    : transport_(transport),
      schedule_(std::move(schedule)),
      operands_(operands),
      element_(element),
      tag_(tag),
      window_(static_cast<std::size_t>(std::max(depth.window, 2))),
      in_flight_(depth.in_flight),
      what_(std::move(what)),
      scratch_(schedule_->scratch * element.bytes) {}

Progress Execution::progress() {
  bool moved = admit();
  for (std::size_t i = 0; i < open_.size(); ++i) moved |= advance(i);
  while (!open_.empty() && open_.front().state == State::done) open_.pop_front();
  if (open_.empty() && next_ == schedule_->actions.size()) return Progress::done;
  return moved ? Progress::moved : Progress::idle;
}

/// That of the first message which has not come, or not gone.
int Execution::peer() const {
  const auto first = std::find_if(open_.begin(), open_.end(),
                                  [](const Open& each) { return each.state == State::posted; });
  return first == open_.end() ? -1 : transport_.member(first->action->peer);
}

bool Execution::admit() {
  bool moved = false;
  while (open_.size() < window_ && next_ < schedule_->actions.size()) {
    open_.push_back({.action = &schedule_->actions[next_++], .landing = {}});
    moved = true;
  }
  return moved;
}

bool Execution::advance(std::size_t position) {
  auto& open = open_[position];
  bool moved = false;
  if (open.state == State::blocked) moved |= post(position);
  if (open.state == State::posted) moved |= complete(open);
  if (open.state == State::arrived && !conflicts(position)) {
    apply(open);
    if (open.landing.size()) spare_.push_back(std::move(open.landing));
    open.state = State::done;
    moved = true;
  }
  return moved;
}

/// Starts an action if nothing earlier stands in its way. A recv_reduce lands in memory of its own,
/// so it is always under way before its turn to reduce comes.
bool Execution::post(std::size_t position) {
  auto& open = open_[position];
  const auto& action = *open.action;
  if (action.peer < 0) {
    open.state = State::arrived;
    return true;
  }
  if (!next_for_peer(position)) return false;
  if (action.verb != Verb::recv_reduce && conflicts(position)) return false;
  if (action.verb == Verb::send && !has_room(position)) return false;
  try {
    if (action.verb == Verb::send) {
      open.request = transport_.send(action.peer, tag_, memory(action.range));
      sending_ += memory(action.range).bytes;
    } else if (action.verb == Verb::recv) {
      open.request = transport_.recv(action.peer, tag_, memory(action.range));
    } else {
      const std::size_t bytes = action.range.count * element_.bytes;
      if (!spare_.empty() && spare_.back().size() >= bytes) {
        open.landing = std::move(spare_.back());
        spare_.pop_back();
      } else {
        open.landing = Bytes(bytes);
      }
      open.request = transport_.recv(action.peer, tag_, {open.landing.data(), bytes, {}});
    }
  } catch (const RankFailedError& error) {
    throw RankFailedError(place(action) + ": " + error.what());
  }
  open.state = State::posted;
  return true;
}

bool Execution::complete(Open& open) {
  const auto& action = *open.action;
  std::optional<std::size_t> moved;
  try {
    moved = transport_.test(open.request);
  } catch (const RankFailedError& error) {
    throw RankFailedError(place(action) + ": " + error.what());
  }
  if (!moved) return false;
  const std::size_t expected = action.range.count * element_.bytes;
  if (receives(action.verb) && *moved != expected)
    throw Error(place(action) + ": " + std::to_string(*moved) + " bytes were received instead of " +
                std::to_string(expected));
  if (action.verb == Verb::send) sending_ -= expected;
  open.state = action.verb == Verb::recv_reduce ? State::arrived : State::done;
  return true;
}

void Execution::apply(const Open& open) {
  const auto& action = *open.action;
  std::byte* range = memory(action.range).data;
  const std::byte* other =
      action.verb == Verb::recv_reduce ? open.landing.data() : memory(action.source).data;
  if (action.verb == Verb::copy) {
    copy_bytes(range, other, action.range.count * element_.bytes);
    return;
  }
  Mean left{range, action.held.range}, right{other, action.held.other};
  if (action.order == Order::other_first) std::swap(left, right);
  const std::size_t count = action.range.count;
  if (element_.mean)
    mean(element_.dtype, range, left, right, count);
  else
    ronde::reduce(element_.op, element_.dtype, range, left.data, right.data, count);
}

/// Whether an earlier action in the window still has to read what this one writes, or to write what
/// this one touches.
bool Execution::conflicts(std::size_t position) const {
  const auto& mine = *open_[position].action;
  for (std::size_t i = 0; i < position; ++i) {
    if (open_[i].state == State::done) continue;
    const auto& earlier = *open_[i].action;
    if (writes(earlier.verb) && (mine.range.overlaps(earlier.range) ||
                                 (mine.peer < 0 && mine.source.overlaps(earlier.range))))
      return true;
    if (writes(mine.verb) && (mine.range.overlaps(earlier.range) ||
                              (earlier.peer < 0 && mine.range.overlaps(earlier.source))))
      return true;
  }
  return false;
}

/// Messages between two ranks are matched in the order in which both start them.
bool Execution::next_for_peer(std::size_t position) const {
  const auto& mine = *open_[position].action;
  return std::none_of(open_.begin(), open_.begin() + position, [&](const Open& earlier) {
    return earlier.state == State::blocked && earlier.action->peer == mine.peer &&
           (earlier.action->verb == Verb::send) == (mine.verb == Verb::send);
  });
}

/// Whether another message may be on its way. The first action that is not done always may: it is
/// the one that others may wait for, and what keeps it waiting may wait for it.
bool Execution::has_room(std::size_t position) const {
  return position == 0 || sending_ == 0 ||
         sending_ + memory(open_[position].action->range).bytes <= in_flight_;
}

Buffer Execution::memory(const Range& range) const {
  const std::size_t offset = range.offset * element_.bytes;
  const std::size_t bytes = range.count * element_.bytes;
  switch (range.where) {
    case Where::input:
      // Only ever read: schedules do not write to `input` (the simulator checks).
      return {const_cast<std::byte*>(operands_.input.data) + offset, bytes, operands_.input.device};
    case Where::data:
      return operands_.data.slice(offset, bytes);
    case Where::scratch:
      return {scratch_.data() + offset, bytes, {}};
  }
  return {};
}

/// "allreduce by ring, step 3/14, rank 2 <- 1"
std::string Execution::place(const Action& action) const {
  return what_ + ", step " + std::to_string(action.step + 1) + "/" +
         std::to_string(schedule_->steps) + ", rank " + std::to_string(transport_.rank()) +
         (action.verb == Verb::send ? " -> " : " <- ") + std::to_string(action.peer);
}

}  // namespace ronde
