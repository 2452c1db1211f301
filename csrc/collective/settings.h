// What the environment may set. All ranks must have the same; ronde.init compares.
#pragma once

#include <cstddef>
#include <map>
#include <string>

namespace ronde {

/// As long as a message over TCP should be. Up to 64 KB with its headers, MPI libraries send it at
/// once. A longer one waits until the receiver has answered, and the answer queues behind all that
/// is under way from there.
constexpr std::size_t kBetweenMachines = 60 << 10;

struct Settings {
  // RONDE_SEGMENT_BYTES: messages are cut to this size
  std::size_t segment_bytes = kBetweenMachines;
  int window = 32;             // RONDE_WINDOW: actions of a schedule looked at at once
  bool check = true;           // RONDE_CHECK: compare the calls of the ranks
  bool deterministic = false;  // RONDE_DETERMINISTIC: same bits at any position
  double stall_warning = 60;   // RONDE_STALL_WARNING: seconds, 0 for never
  double stall_timeout = 600;  // RONDE_STALL_TIMEOUT: seconds, 0 for never
  bool spin = true;            // false where ranks outnumber cores: a waiting rank yields at once
  std::map<std::string, std::string> algorithm;  // RONDE_ALGORITHM=allreduce:ring,...
};

}  // namespace ronde
