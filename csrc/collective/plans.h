// What the link between the ranks costs, as far as it is known, and the schedules chosen by that.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>

#include "collective/settings.h"
#include "schedule/cost.h"
#include "schedule/schedule.h"

namespace ronde {

class Plans {
 public:
  explicit Plans(Settings settings) : settings_(std::move(settings)) {}

  /// Whether the user has chosen no algorithm for schedules.
  bool chosen_freely(Collective collective, std::string_view named) const;

  /// What is kept of each kind of plan, at most.
  static constexpr std::size_t kMost = 256;

  struct Plan {
    const Algorithm* algorithm;
    std::shared_ptr<const Schedule> schedule;
    std::string why;  // the algorithm, in words
  };

  /// The schedule of this rank, by the algorithm that is `named`, that the settings name, or that
  /// is the cheapest.
  const Plan& plan(Collective collective, const Layout& layout, std::size_t element_bytes,
                   std::string_view named);

  /// Whether an allreduce of so many bytes between so many ranks is piggybacked on phase 0, as that
  /// is faster. In deterministic mode an element must not be reduced by another tree in a small
  /// array than in a large one. `agrees`: whether there is a phase 0 in any case.
  bool piggybacks(std::size_t bytes, std::size_t element_bytes, int ranks, bool agrees);

  /// Whether the ranks have to measure the link before a collective of so many bytes. It must be at
  /// least 4 KiB; for shorter ones an ordinary Ethernet is assumed, whatever is known by then, so
  /// that the same call gives the same bits before and after.
  bool needs_link(std::size_t bytes) const;
  void set_link(const Link& link);
  const Link& link() const { return link_; }

  /// Bytes that are on their way from a rank at once, at most: some segments, and on a long link
  /// what it carries while a message and an answer travel.
  std::size_t in_flight() const;

 private:
  const Link& link_for(std::size_t bytes) const;
  std::string why(Collective collective, std::size_t bytes, std::string_view named) const;

  const Settings settings_;
  Link link_;
  bool link_known_ = false;
  // The schedules of recent calls, by all that they depend on.
  using Key = std::tuple<Collective, std::size_t, int, Chunks, Chunks, std::string>;
  std::map<Key, Plan> plans_;
  std::map<std::pair<std::size_t, std::size_t>, bool> piggybacks_;  // by bytes, and of an element
};

/// "20 us and 125 MB/s"
std::string text_of(const Link& link);

}  // namespace ronde
