// The simulator finds what is wrong with a schedule: each of these is broken in one way.
#include "schedule/simulate.h"

#include <cstdio>
#include <string>

namespace {

using namespace ronde;

// Two ranks that swap chunks, as they should.
Schedule good(const Layout& layout) {
  const int peer = layout.neighbour(1);
  Schedule schedule;
  schedule.send(0, peer, layout.chunks[layout.rank]);
  schedule.recv(0, peer, layout.chunks[peer]);
  return schedule;
}

Schedule forgets_to_receive(const Layout& layout) {
  Schedule schedule = good(layout);
  if (layout.rank == 1) schedule.actions.pop_back();
  return schedule;
}

Schedule overwrites_the_result(const Layout& layout) {
  Schedule schedule = good(layout);
  schedule.copy(0, layout.chunks[layout.neighbour(1)], layout.chunks[layout.rank]);
  return schedule;
}

// The send must not change before it is done, and waits for a receive that waits for a send.
Schedule receives_where_it_sends(const Layout& layout) {
  Schedule schedule = good(layout);
  schedule.actions[1].range = schedule.actions[0].range;
  return schedule;
}

Schedule sends_what_nobody_gave(const Layout& layout) {
  Schedule schedule = good(layout);
  schedule.actions[0].range = layout.chunks[layout.neighbour(1)].in(Where::scratch);
  schedule.scratch = layout.chunks.total();
  return schedule;
}

Schedule sends_beyond_the_end(const Layout& layout) {
  Schedule schedule = good(layout);
  schedule.actions[0].range.offset = layout.chunks.total();
  return schedule;
}

Schedule disagrees_on_the_size(const Layout& layout) {
  Schedule schedule = good(layout);
  if (layout.rank == 0) schedule.actions[1].range.count -= 1;
  return schedule;
}

Schedule disagrees_on_the_step(const Layout& layout) {
  Schedule schedule = good(layout);
  schedule.steps = 2;
  if (layout.rank == 0) schedule.actions[1].step = 1;
  return schedule;
}

Schedule disagrees_on_the_steps(const Layout& layout) {
  Schedule schedule = good(layout);
  schedule.steps += layout.rank;
  return schedule;
}

Schedule talks_to_itself(const Layout& layout) {
  Schedule schedule = good(layout);
  schedule.actions[0].peer = layout.rank;
  return schedule;
}

// Rank 0 hands on to rank 2, in the same step, what it has just received from rank 1.
Schedule hurries(const Layout& layout) {
  const Range whole = layout.chunks.whole();
  Schedule schedule{.actions = {}, .scratch = 0, .steps = 1};
  if (layout.rank == 1) schedule.send(0, 0, whole);
  if (layout.rank == 0) schedule.recv(0, 1, whole);
  if (layout.rank == 0) schedule.send(0, 2, whole);
  if (layout.rank == 2) schedule.recv(0, 0, whole);
  return schedule;
}

// Adds the contribution of the other rank, and then its sum once more.
Schedule counts_twice(const Layout& layout) {
  const Range whole = layout.chunks.whole();
  const int peer = layout.neighbour(1);
  Schedule schedule{.actions = {}, .scratch = whole.count, .steps = 0};
  schedule.send(0, peer, whole);
  schedule.recv(0, peer, whole.in(Where::scratch));
  schedule.reduce(0, whole, whole.in(Where::scratch), Order::range_first, {1, 1});
  schedule.reduce(0, whole, whole.in(Where::scratch), Order::range_first, {2, 1});
  return schedule;
}

// Takes what comes for a mean of two.
Schedule weighs_wrongly(const Layout& layout) {
  Schedule schedule = counts_twice(layout);
  schedule.actions.pop_back();
  schedule.actions.back().held.other = 2;
  return schedule;
}

// Right, but each rank stands left in its own sum.
Schedule puts_itself_first(const Layout& layout) {
  Schedule schedule = counts_twice(layout);
  schedule.actions.pop_back();
  return schedule;
}

int failures = 0;

void expect(bool holds, const std::string& what) {
  if (holds) return;
  std::printf("FAILED: %s\n", what.c_str());
  ++failures;
}

Simulation run(Collective collective, Schedule (*build)(const Layout&), int ranks, int root = 0) {
  const Algorithm algorithm{collective, "broken", build, true, true};
  return simulate(algorithm, std::vector<std::size_t>(ranks, 4), root);
}

void expect_error(Collective collective, Schedule (*build)(const Layout&), int ranks, int root,
                  const std::string& part) {
  const std::string error = run(collective, build, ranks, root).error;
  expect(error.find(part) != std::string::npos, "'" + part + "' in '" + error + "'");
}

}  // namespace

int main() {
  const auto allgather = Collective::allgather;
  expect(run(allgather, good, 2).error.empty(), "a good schedule is good");
  expect_error(allgather, forgets_to_receive, 2, 0,
               "rank 0, step 0: waits for rank 1 forever (a deadlock)");
  expect_error(allgather, overwrites_the_result, 2, 0, "the result is wrong");
  expect_error(allgather, receives_where_it_sends, 2, 0, "forever");
  expect_error(allgather, sends_what_nobody_gave, 2, 0, "reads an undefined element");
  expect_error(allgather, sends_beyond_the_end, 2, 0, "a range ends outside its buffer");
  expect_error(allgather, disagrees_on_the_size, 2, 0, "a message of another size or step");
  expect_error(allgather, disagrees_on_the_step, 2, 0, "a message of another size or step");
  expect_error(allgather, disagrees_on_the_steps, 2, 0, "agree on the number of steps");
  expect_error(allgather, talks_to_itself, 2, 0, "is not another rank");
  expect_error(Collective::broadcast, hurries, 3, 1,
               "sends data that it receives in the same step");
  expect_error(Collective::allreduce, counts_twice, 2, 0, "the result is wrong");
  expect_error(Collective::allreduce, weighs_wrongly, 2, 0,
               "step 0: reduces 1 and 1 contributions, not 1 and 2");

  const Simulation selfish = run(Collective::allreduce, puts_itself_first, 2);
  expect(selfish.error.empty(), "every contribution counts once");
  expect(!selfish.same_bits, "ranks that add in different orders are found out");
  return failures;
}
