#include "schedule/schedule.h"

#include <algorithm>

#include "core/error.h"

namespace ronde {

Chunks Chunks::even(std::size_t count, int parts) {
  const std::size_t share = count / parts, longer = count % parts;
  Chunks chunks;
  for (int part = 0; part < parts; ++part) {
    chunks.offsets_.push_back(chunks.total() + share + (static_cast<std::size_t>(part) < longer));
  }
  return chunks;
}

Chunks Chunks::of(std::span<const std::size_t> counts) {
  Chunks chunks;
  for (const std::size_t count : counts) chunks.offsets_.push_back(chunks.total() + count);
  return chunks;
}

std::size_t Chunks::largest() const {
  std::size_t largest = 0;
  for (int chunk = 0; chunk < size(); ++chunk) largest = std::max(largest, count(chunk));
  return largest;
}

std::vector<Range> Chunks::around(int begin, int number) const {
  begin = (begin % size() + size()) % size();
  const int end = begin + number;
  if (end <= size()) return {span(begin, end)};
  return {span(begin, size()), span(0, end - size())};
}

namespace {

void add(Schedule& schedule, const Action& action) {
  // Also a step whose messages are all empty is counted: on other ranks they may not be.
  schedule.steps = std::max(schedule.steps, action.step + 1);
  if (action.range.count > 0) schedule.actions.push_back(action);
}

}  // namespace

void Schedule::send(int step, int peer, Range range) {
  add(*this, {Verb::send, Order::range_first, step, peer, range, {}, {}});
}

void Schedule::recv(int step, int peer, Range range) {
  add(*this, {Verb::recv, Order::range_first, step, peer, range, {}, {}});
}

void Schedule::recv_reduce(int step, int peer, Range range, Order order, Held held) {
  add(*this, {Verb::recv_reduce, order, step, peer, range, {}, held});
}

void Schedule::copy(int step, Range to, Range from) {
  add(*this, {Verb::copy, Order::range_first, step, -1, to, from, {}});
}

void Schedule::reduce(int step, Range to, Range from, Order order, Held held) {
  add(*this, {Verb::reduce, order, step, -1, to, from, held});
}

Schedule then(Schedule first, const Schedule& second) {
  for (Action action : second.actions) {
    action.step += first.steps;
    first.actions.push_back(action);
  }
  first.steps += second.steps;
  first.scratch = std::max(first.scratch, second.scratch);
  return first;
}

namespace {

/// Row or column `rank` of a square matrix.
Chunks line(std::span<const std::size_t> matrix, int size, std::size_t begin, std::size_t stride) {
  std::vector<std::size_t> counts(size);
  for (int i = 0; i < size; ++i) counts[i] = matrix[begin + i * stride];
  return Chunks::of(counts);
}

int size_of(Collective collective, std::size_t counts) {
  if (collective != Collective::alltoall) return static_cast<int>(counts);
  int size = 0;
  while (static_cast<std::size_t>(size) * size < counts) ++size;
  if (static_cast<std::size_t>(size) * size == counts) return size;
  throw ArgumentError("alltoall takes a square matrix of counts, not " + std::to_string(counts));
}

}  // namespace

Layout layout_of(Collective collective, std::span<const std::size_t> counts, int rank, int root) {
  const int size = size_of(collective, counts.size());
  if (size == 0) throw ArgumentError("there are no counts: a collective has at least one rank");
  if (rank < 0 || rank >= size || root < 0 || root >= size) {
    throw ArgumentError("rank " + std::to_string(rank) + " or root " + std::to_string(root) +
                        " is outside a world of " + std::to_string(size));
  }
  if (collective != Collective::alltoall) return {rank, Chunks::of(counts), {}, root};
  return {rank, line(counts, size, rank, size),
          line(counts, size, static_cast<std::size_t>(rank) * size, 1), root};
}

}  // namespace ronde
