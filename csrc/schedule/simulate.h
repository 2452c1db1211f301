// All ranks of a collective in one function, with no processes and no bytes.
//
// Every element is a number that stands for the expression which computed it: rank r begins with
// leaf(r), and an operation mixes its two operands in a way that is neither commutative nor
// associative. So the simulation shows not only that a result is right but by which tree it came.
// A second number, a plain sum of random values, shows that every contribution counts exactly once.
// Sends are rendezvous (they wait for their receive) and each rank looks at no more than `window`
// actions at once: what completes here cannot deadlock anywhere.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "schedule/schedule.h"

namespace ronde {

struct SimulatedRank {
  std::size_t messages = 0, sent = 0, received = 0, reduced = 0;  // the last three in elements
};

struct Simulation {
  std::string error;  // empty when everything below holds
  std::vector<SimulatedRank> ranks;
  int steps = 0;
  int depth = 0;                      // of the deepest tree: how often a result is rounded
  bool same_bits = false;             // all ranks computed each element by the same tree
  bool position_independent = false;  // and it is the same tree for every element
  std::uint64_t tree = 0;             // that tree: equal for algorithms that compute the same bits
};

/// Runs `algorithm` on ranks with these chunk counts (see layout_of). It checks that the schedule
/// ends, that messages match receives of their size, that nothing undefined or outside the buffers
/// is read, that step numbers and the numbers of contributions tell the truth (see schedule.h), and
/// that each rank ends with exactly what the collective promises.
Simulation simulate(const Algorithm& algorithm, const std::vector<std::size_t>& counts, int root,
                    int window = 2);

}  // namespace ronde
