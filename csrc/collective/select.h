// Which algorithm runs a collective: the cheapest by the cost model, or one that is as good as the
// cheapest, unless the user says otherwise.
//
// A pure function of values that all ranks share (the call, the agreed settings, the agreed
// measurements), so all ranks choose alike without a word.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

#include "collective/settings.h"
#include "schedule/cost.h"
#include "schedule/schedule.h"

namespace ronde {

struct Candidate {
  const Algorithm* algorithm;
  Cost cost;
};

/// Whether elements of different ranks are reduced: such a collective has rounding errors.
bool reduces(Collective collective);

/// The algorithms that can run `layout` under these settings: first the one to take, then the
/// others, cheapest first. To take is the first of the table among those whose cost is within two
/// percent of the least: the table begins with those that load the network most evenly.
/// `layout.rank` is ignored: the cost is that of the rank on the critical path.
std::vector<Candidate> candidates(Collective collective, Layout layout, std::size_t item_bytes,
                                  const Link& link, const Settings& settings);

/// Throws ArgumentError where the algorithm `named`, or that of the settings, cannot run on
/// so many ranks.
void require_algorithm(Collective collective, int size, const Settings& settings,
                       std::string_view named);

/// The algorithm of that name, else the one that settings.algorithm names, else the cheapest.
const Algorithm& select(Collective collective, const Layout& layout, std::size_t item_bytes,
                        const Link& link, const Settings& settings, std::string_view named);

}  // namespace ronde
