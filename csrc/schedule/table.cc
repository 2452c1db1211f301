#include "schedule/table.h"

#include <string>

#include "core/error.h"

namespace ronde {
namespace {

constexpr Algorithm kAlgorithms[] = {
#define RONDE_ROW(name, collective, position_independent, any_size) \
  {Collective::collective, #name, name::collective, position_independent, any_size},
    RONDE_ALGORITHMS(RONDE_ROW)
#undef RONDE_ROW
};

}  // namespace

std::span<const Algorithm> algorithms() { return kAlgorithms; }

Collective find_collective(std::string_view name) {
  std::string known;
  for (int i = 0; i < kCollectiveCount; ++i) {
    const auto collective = static_cast<Collective>(i);
    if (name_of(collective) == name) return collective;
    known.append(i ? ", " : "").append(name_of(collective));
  }
  throw ArgumentError("no collective is called '" + std::string(name) + "'; there are " + known);
}

const Algorithm& find_algorithm(Collective collective, std::string_view name) {
  std::string known;
  for (const Algorithm& algorithm : kAlgorithms) {
    if (algorithm.collective != collective) continue;
    if (algorithm.name == name) return algorithm;
    known.append(known.empty() ? "" : ", ").append(algorithm.name);
  }
  throw ArgumentError(std::string(name_of(collective)) + " has no algorithm called '" +
                      std::string(name) + "'; there are " + known);
}

}  // namespace ronde
