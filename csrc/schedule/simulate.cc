#include "schedule/simulate.h"

#include <deque>

#include "core/error.h"
#include "schedule/runner.h"

namespace ronde {
namespace {

using namespace simulation;

class World {
 public:
  World(const Algorithm& algorithm, const std::vector<std::size_t>& counts, int root, int window)
      : algorithm_(algorithm),
        collective_(algorithm.collective),
        counts_(counts),
        root_(root),
        window_(window) {}

  Simulation run() {
    Simulation result;
    try {
      start();
      check_steps();
      play();
      check_end();
      check_promise();
    } catch (const Fault& fault) {
      result.error = fault.what();
    }
    for (const Runner& rank : ranks_) result.ranks.push_back(rank.counted);
    if (result.error.empty()) judge(result);
    return result;
  }

 private:
  int size() const { return static_cast<int>(ranks_.size()); }

  void start() {
    const int size = layout_of(collective_, counts_, 0, root_).size();
    if (!algorithm_.supports(size)) {
      throw ArgumentError(std::string(algorithm_.name) + " needs a power of two of ranks, not " +
                          std::to_string(size));
    }
    for (int rank = 0; rank < size; ++rank) {
      ranks_.emplace_back(algorithm_, layout_of(collective_, counts_, rank, root_));
    }
  }

  void check_steps() const {
    for (const Runner& rank : ranks_) {
      if (rank.schedule.steps != ranks_[0].schedule.steps) {
        throw Fault("ranks 0 and " + std::to_string(rank.layout.rank) +
                    " do not agree on the number of steps");
      }
    }
  }

  /// Runs whatever can run. What can run stays so until it does, so the order does not matter.
  void play() {
    std::deque<int> awake;
    for (int rank = 0; rank < size(); ++rank) awake.push_back(rank);
    while (!awake.empty()) {
      const int rank = awake.front();
      awake.pop_front();
      const int peer = advance(ranks_[rank]);
      if (peer == kNobody) continue;
      awake.push_back(rank);
      if (peer != rank) awake.push_back(peer);
    }
  }

  static constexpr int kNobody = -1;

  /// Runs one action of this rank. Returns who moved with it, the rank itself, or nobody.
  int advance(Runner& rank) {
    for (const std::size_t index : rank.open(window_)) {
      const Action& action = rank.schedule.actions[index];
      if (local(action)) {
        run_local(rank, action);
        rank.finish(index);
        return rank.layout.rank;
      }
      Runner& peer = ranks_[action.peer];
      for (const std::size_t other_index : peer.open(window_)) {
        const Action& other = peer.schedule.actions[other_index];
        if (other.peer != rank.layout.rank || receives(other) == receives(action)) continue;
        receives(action) ? deliver(peer, other, rank, action) : deliver(rank, action, peer, other);
        rank.finish(index);
        peer.finish(other_index);
        return action.peer;
      }
    }
    return kNobody;
  }

  void run_local(Runner& rank, const Action& action) {
    if (action.source.count != action.range.count) {
      throw Fault(where(rank.layout.rank, action) + "source and range differ in size");
    }
    Element* range = rank.at(action.range);
    const Element* source = rank.at(action.source);
    for (std::size_t i = 0; i < action.range.count; ++i) {
      check_defined(rank, action, source[i]);
      if (action.verb == Verb::copy) {
        range[i] = source[i];
      } else {
        check_defined(rank, action, range[i]);
        range[i] = reduced(range[i], source[i], action, rank.layout.rank);
      }
    }
    if (action.verb == Verb::reduce) rank.counted.reduced += action.range.count;
  }

  void deliver(Runner& from, const Action& send, Runner& to, const Action& receive) {
    const std::string here = where(from.layout.rank, send);
    if (send.range.count != receive.range.count || send.step != receive.step) {
      throw Fault(here + "rank " + std::to_string(send.peer) +
                  " expects a message of another size or step");
    }
    const Element* source = from.at(send.range);
    Element* range = to.at(receive.range);
    for (std::size_t i = 0; i < send.range.count; ++i) {
      check_defined(from, send, source[i]);
      if (source[i].ready > send.step)
        throw Fault(here + "sends data that it receives in the same step");
      Element arrived = source[i];
      if (receive.verb == Verb::recv_reduce) {
        check_defined(to, receive, range[i]);
        arrived = reduced(range[i], arrived, receive, to.layout.rank);
      }
      arrived.ready = std::max(arrived.ready, send.step + 1);
      range[i] = arrived;
    }
    ++from.counted.messages;
    from.counted.sent += send.range.count;
    to.counted.received += send.range.count;
    if (receive.verb == Verb::recv_reduce) to.counted.reduced += send.range.count;
  }

  void check_defined(const Runner& rank, const Action& action, const Element& element) const {
    if (element.ready == kUndefined) {
      throw Fault(where(rank.layout.rank, action) + "reads an undefined element");
    }
  }

  void check_end() const {
    for (const Runner& rank : ranks_) {
      if (rank.finished()) continue;
      throw Fault(where(rank.layout.rank, rank.next()) + "waits for rank " +
                  std::to_string(rank.next().peer) + " forever (a deadlock)");
    }
  }

  bool reduces() const {
    return collective_ == Collective::allreduce || collective_ == Collective::reduce_scatter ||
           collective_ == Collective::reduce;
  }

  /// What the collective defines on this rank.
  Range promised(const Layout& layout) const {
    switch (collective_) {
      case Collective::reduce:
      case Collective::gather:
        return layout.rank == root_ ? layout.chunks.whole() : Range{};
      case Collective::reduce_scatter:
      case Collective::scatter:
        return layout.chunks[layout.rank];
      default:
        return layout.chunks.whole();
    }
  }

  /// The sum that position `i` of chunk `chunk` must have.
  std::uint64_t expected(const Layout& layout, int chunk, std::size_t position) const {
    if (collective_ == Collective::broadcast || collective_ == Collective::scatter) {
      return original(root_, position).sum;
    }
    if (collective_ == Collective::alltoall) {
      const std::size_t in_chunk = position - layout.chunks[chunk].offset;
      return original(chunk, ranks_[chunk].layout.inputs[layout.rank].offset + in_chunk).sum;
    }
    if (!reduces()) return original(chunk, position).sum;
    return totals_[position];
  }

  void check_promise() {
    const Chunks& chunks = ranks_[0].layout.chunks;
    if (reduces()) {
      totals_.resize(chunks.total());
      for (std::size_t i = 0; i < chunks.total(); ++i) {
        for (int rank = 0; rank < size(); ++rank) totals_[i] += original(rank, i).sum;
      }
    }
    for (Runner& rank : ranks_) {
      const Range range = promised(rank.layout);
      for (int chunk = 0; chunk < size(); ++chunk) {
        const Range part = rank.layout.chunks[chunk];
        for (std::size_t i = std::max(part.offset, range.offset);
             i < std::min(part.end(), range.end()); ++i) {
          const Element& element = rank.at({Where::data, i, 1})[0];
          if (element.ready == kUndefined || element.sum != expected(rank.layout, chunk, i)) {
            throw Fault("rank " + std::to_string(rank.layout.rank) + ", element " +
                        std::to_string(i) + ": the result is wrong");
          }
        }
      }
    }
  }

  void judge(Simulation& result) {
    result.steps = ranks_[0].schedule.steps;
    result.same_bits = result.position_independent = true;
    if (!reduces()) return;
    std::vector<const Element*> seen(ranks_[0].layout.chunks.total());
    const Element* any = nullptr;
    for (Runner& rank : ranks_) {
      const Range range = promised(rank.layout);
      for (std::size_t i = range.offset; i < range.end(); ++i) {
        const Element* element = rank.at({Where::data, i, 1});
        if (!seen[i]) seen[i] = element;
        if (!any) any = element;
        result.depth = std::max(result.depth, element->depth);
        result.same_bits &= element->tree == seen[i]->tree;
        result.position_independent &= element->tree == any->tree;
      }
    }
    if (any && result.position_independent) result.tree = any->tree;
  }

  const Algorithm& algorithm_;
  Collective collective_;
  const std::vector<std::size_t>& counts_;
  int root_;
  int window_;
  std::vector<Runner> ranks_;
  std::vector<std::uint64_t> totals_;
};

}  // namespace

Simulation simulate(const Algorithm& algorithm, const std::vector<std::size_t>& counts, int root,
                    int window) {
  return World(algorithm, counts, root, window).run();
}

}  // namespace ronde
