// Ranks of the fake NCCL (fake_nccl.cc) in several processes of one machine.
//
// The process that makes ids answers at an abstract socket. For each question of another process
// there is a connection: what a group reads travels with it, and what it writes with the answer. If
// the process that answers dies, nothing comes any more, as from a peer that has died: groups wait
// until they are aborted.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "fake_nccl_member.h"

namespace fake_nccl {

/// An id, of which this process has the World.
std::string make_id();
/// Whether it has.
bool is_local(const std::string& id);

/// Answers other processes from now on. `world(id, size)`: the one of that id.
using FindWorld = std::function<std::shared_ptr<World>(const std::string&, int)>;
void answer(FindWorld world);

std::unique_ptr<Member> remote_member(const std::string& id, int rank, int size);

}  // namespace fake_nccl
