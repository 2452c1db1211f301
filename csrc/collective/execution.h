// The executor: runs one rank's schedule over a transport.
//
// It is a state machine. `progress` starts what can start, completes what has arrived, and returns
// at once; blocking means calling it until it says `done`. It looks at a window of actions of the
// schedule. Within the window everything overlaps that does not conflict: an action waits only for
// earlier actions that touch the same elements. So the segments of one step travel while those of
// the step before are reduced, and no algorithm has to say so.
//
// How many bytes it has on their way is limited: what is sent long before it is needed only queues
// up in the network, in front of what somebody else waits for.
#pragma once

#include <cstddef>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "collective/work.h"
#include "core/buffer.h"
#include "core/bytes.h"
#include "core/dtype.h"
#include "schedule/schedule.h"
#include "transport/transport.h"

namespace ronde {

/// What an element is. The rest counts where the schedule reduces.
struct Element {
  std::size_t bytes = 1;
  DType dtype = DType::uint8;
  ReduceOp op = ReduceOp::sum;
  bool mean = false;  // partial results are means of the contributions so far (reduction.h)
};

struct Operands {
  ConstBuffer input;
  Buffer data;
};

/// How far an execution looks ahead.
struct Depth {
  int window = 2;             // actions of the schedule looked at at once
  std::size_t in_flight = 0;  // bytes that may be on their way from this rank; one message always
};

/// The same schedule in messages of at most `elements` elements. A send and the receive behind it
/// are cut in turns, so that the result is again a schedule with pairs.
Schedule segmented(const Schedule& schedule, std::size_t elements);

class Execution final : public Work {
 public:
  /// `what` ("allreduce by ring") opens the text of every error.
  Execution(Transport& transport, std::shared_ptr<const Schedule> schedule, Operands operands,
            Element element, int tag, Depth depth, std::string what);

  Progress progress() override;
  int peer() const override;

 private:
  enum class State { blocked, posted, arrived, done };

  /// An action in the window.
  struct Open {
    const Action* action;
    State state = State::blocked;
    Request request = 0;
    Bytes landing;  // where a recv_reduce receives
  };

  bool admit();
  bool advance(std::size_t position);
  bool post(std::size_t position);
  bool complete(Open& open);
  void apply(const Open& open);

  bool conflicts(std::size_t position) const;
  bool next_for_peer(std::size_t position) const;
  bool has_room(std::size_t position) const;

  Buffer memory(const Range& range) const;
  std::string place(const Action& action) const;

  Transport& transport_;
  const std::shared_ptr<const Schedule> schedule_;
  const Operands operands_;
  const Element element_;
  const int tag_;
  const std::size_t window_, in_flight_;
  const std::string what_;
  Bytes scratch_;
  std::size_t next_ = 0;     // the first action that has not been admitted
  std::size_t sending_ = 0;  // bytes under way
  std::deque<Open> open_;
  std::vector<Bytes> spare_;  // memory that messages were received in before
};

}  // namespace ronde
