#include "collective/select.h"

#include <algorithm>
#include <string>

#include "core/error.h"

namespace ronde {
namespace {

bool is_rooted(Collective collective) {
  return collective == Collective::broadcast || collective == Collective::reduce ||
         collective == Collective::gather || collective == Collective::scatter;
}

/// The algorithm that is given by name, if one is.
const Algorithm* wanted(Collective collective, int size, const Settings& settings,
                        std::string_view named) {
  const char* from = "";
  if (named.empty()) {
    const auto configured = settings.algorithm.find(std::string(name_of(collective)));
    if (configured == settings.algorithm.end()) return nullptr;
    named = configured->second;
    from = " (RONDE_ALGORITHM)";
  }
  const Algorithm& algorithm = find_algorithm(collective, named);
  if (!algorithm.supports(size))
    throw ArgumentError(std::string(name_of(collective)) + " by " + std::string(named) + from +
                        " needs a power of two of ranks, not " + std::to_string(size));
  return &algorithm;
}

// Predictions that are closer than this say nothing.
constexpr double kTie = 1.02;

}  // namespace

bool reduces(Collective collective) {
  return collective == Collective::allreduce || collective == Collective::reduce_scatter ||
         collective == Collective::reduce;
}

std::vector<Candidate> candidates(Collective collective, Layout layout, std::size_t item_bytes,
                                  const Link& link, const Settings& settings) {
  layout.rank = is_rooted(collective) ? layout.root : 0;
  std::vector<Candidate> result;
  for (const auto& algorithm : algorithms()) {
    if (algorithm.collective != collective || !algorithm.supports(layout.size())) continue;
    const bool fixed = settings.deterministic && reduces(collective);
    if (fixed && !algorithm.position_independent) continue;
    result.push_back({&algorithm, cost_of(algorithm.build(layout), item_bytes, link)});
    // Position-independent algorithms differ in their trees, and a choice by size would make
    // results depend on fusion: the first in the table is the one. So it is for alltoall, whose
    // layout is not the same on all ranks: a choice by cost might differ between them.
    if (fixed || collective == Collective::alltoall) break;
  }
  const auto cheaper = [](const Candidate& a, const Candidate& b) {
    return a.cost.seconds < b.cost.seconds;
  };
  const double least = std::min_element(result.begin(), result.end(), cheaper)->cost.seconds;
  const auto chosen = std::find_if(result.begin(), result.end(), [&](const Candidate& candidate) {
    return candidate.cost.seconds <= kTie * least;
  });
  std::rotate(result.begin(), chosen, chosen + 1);
  std::stable_sort(result.begin() + 1, result.end(), cheaper);
  return result;
}

void require_algorithm(Collective collective, int size, const Settings& settings,
                       std::string_view named) {
  (void)wanted(collective, size, settings, named);
}

const Algorithm& select(Collective collective, const Layout& layout, std::size_t item_bytes,
                        const Link& link, const Settings& settings, std::string_view named) {
  if (const auto* algorithm = wanted(collective, layout.size(), settings, named)) return *algorithm;
  return *candidates(collective, layout, item_bytes, link, settings).front().algorithm;
}

}  // namespace ronde
