// A schedule is data: what one rank does in a collective, as a list of actions.
//
// Nouns, used by every file of this folder:
//   chunk     a rank's part of a vector; `Chunks` says where each rank's part begins
//   range     some elements of one of the three buffers of a collective
//   action    send a range, receive one, receive and reduce, copy or reduce locally
//   step      a round. A message of step s needs nothing that any rank receives in step s or
//             later, so that messages of one step may travel at the same time
//   schedule  the actions of one rank, in an order in which they may be run one pair after another
//
// An algorithm is a pure function from a `Layout` to a `Schedule`. It performs no I/O, keeps no
// state and knows neither dtype nor transport, so it can be simulated, counted, priced and drawn.
// Actions are listed so that a send comes directly before the receive of the same step: whoever
// runs a schedule may look at any number of actions at once, even only at two.
#pragma once

#include <bit>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace ronde {

/// `input` is read only, `data` is what the collective works on, `scratch` is lost afterwards.
enum class Where : std::uint8_t { input, data, scratch };

struct Range {
  Where where = Where::data;
  std::size_t offset = 0;  // in elements
  std::size_t count = 0;

  std::size_t end() const { return offset + count; }
  /// The same elements of another buffer.
  Range in(Where other) const { return {other, offset, count}; }
  bool overlaps(const Range& other) const {
    return where == other.where && offset < other.end() && other.offset < end();
  }
};

enum class Verb : std::uint8_t {
  send,         // range -> peer
  recv,         // peer -> range
  recv_reduce,  // range = range op what came, in the order of `order`
  copy,         // source -> range
  reduce,       // range = range op source, in the order of `order`
};

/// Which operand is left of the operator. Schedules put the contributions of lower ranks first
/// wherever two ranks compute the same element, so that both get the same bits.
enum class Order : std::uint8_t { range_first, other_first };

/// How many contributions each operand of a reduction holds: the weights of a mean.
struct Held {
  int range = 1;
  int other = 1;
};

struct Action {
  Verb verb;
  Order order;
  int step;
  int peer;      // -1 for copy and reduce
  Range range;   // what is sent, or what is written
  Range source;  // what copy and reduce read
  Held held;     // by the operands of recv_reduce and reduce
};

/// A vector cut into one part for each rank.
class Chunks {
 public:
  /// As even as possible: the first `count % parts` chunks hold one element more.
  static Chunks even(std::size_t count, int parts);
  static Chunks of(std::span<const std::size_t> counts);

  int size() const { return static_cast<int>(offsets_.size()) - 1; }
  std::size_t total() const { return offsets_.back(); }
  std::size_t count(int chunk) const { return offsets_[chunk + 1] - offsets_[chunk]; }
  std::size_t largest() const;

  Range operator[](int chunk) const { return span(chunk, chunk + 1); }
  /// The chunks `begin` to `end - 1` as one range.
  Range span(int begin, int end) const {
    return {Where::data, offsets_[begin], offsets_[end] - offsets_[begin]};
  }
  Range whole() const { return span(0, size()); }
  /// `number` chunks from `begin` on, counted modulo the size: one range, or two where they wrap
  /// round. All ranks cut the same chunks at the same position.
  std::vector<Range> around(int begin, int number) const;

  auto operator<=>(const Chunks&) const = default;

 private:
  std::vector<std::size_t> offsets_ = {0};
};

/// Everything that an algorithm may know.
struct Layout {
  int rank = 0;
  Chunks chunks;  // of `data`; their number is the number of ranks
  Chunks inputs;  // of `input`, alltoall only: what this rank sends to each other
  int root = 0;   // broadcast, reduce, gather, scatter only

  int size() const { return chunks.size(); }
  /// The rank, and its chunk, at this distance round the ring of ranks.
  int neighbour(int distance) const { return ((rank + distance) % size() + size()) % size(); }
};

/// The rounds that it takes to reach `size` ranks when their number doubles in each.
constexpr int ceil_log2(int size) { return std::bit_width(static_cast<unsigned>(size - 1)); }

struct Schedule {
  std::vector<Action> actions;
  std::size_t scratch = 0;  // elements
  int steps = 0;  // of the collective: the same on all ranks, also on those idle at its end

  // The five verbs. Empty ranges are left out: both sides of a message see the same emptiness.
  void send(int step, int peer, Range range);
  void recv(int step, int peer, Range range);
  void recv_reduce(int step, int peer, Range range, Order order, Held held);
  void copy(int step, Range to, Range from);
  void reduce(int step, Range to, Range from, Order order, Held held);
};

/// First one, then the other, with the steps counted on. They share their scratch.
Schedule then(Schedule first, const Schedule& second);

enum class Collective : std::uint8_t {
  allreduce,       // data: the vector of each rank -> their reduction
  reduce_scatter,  // data: the vector of each rank -> its own chunk reduced, the rest undefined
  allgather,       // data: its own chunk -> all chunks
  broadcast,       // data: the vector of the root -> the same everywhere
  reduce,          // data: the vector of each rank -> at the root the reduction, else undefined
  gather,          // data: its own chunk -> at the root all chunks, else undefined
  scatter,         // data: at the root all chunks -> its own chunk, the rest undefined
  alltoall,        // input: a chunk for each rank -> data: a chunk from each rank
};

inline constexpr int kCollectiveCount = 8;

/// The layout of `rank`, from one count for each rank, or for alltoall from the matrix of counts,
/// row by row (row = sender). Throws ArgumentError where counts, rank and root do not fit together.
Layout layout_of(Collective collective, std::span<const std::size_t> counts, int rank, int root);

constexpr std::string_view name_of(Collective collective) {
  constexpr std::string_view names[kCollectiveCount] = {"allreduce", "reducescatter", "allgather",
                                                        "broadcast", "reduce",        "gather",
                                                        "scatter",   "alltoall"};
  return names[static_cast<int>(collective)];
}

/// A row of the table of algorithms (table.h).
struct Algorithm {
  Collective collective;
  std::string_view name;
  Schedule (*build)(const Layout&);
  /// Every element is reduced by the same tree of operations, at every position of the vector.
  bool position_independent;
  /// Works for any number of ranks, not for powers of two alone.
  bool any_size;

  bool supports(int size) const { return any_size || (size & (size - 1)) == 0; }
};

std::span<const Algorithm> algorithms();

/// Throws ArgumentError that lists the names there are.
Collective find_collective(std::string_view name);

/// The row with that name. Throws ArgumentError that lists the names there are.
const Algorithm& find_algorithm(Collective collective, std::string_view name);

}  // namespace ronde
