// The files that MPI libraries make in /dev/shm for memory that the ranks of a machine share.
//
// An MPI removes them at an orderly end and leaves them behind at any other. They are needed only
// until every rank of the machine has opened them, which MPICH and Open MPI 5 do in MPI_Init; the
// memory itself stays for those who have it open.
#pragma once

#include <sys/types.h>

#include <array>
#include <string>
#include <string_view>
#include <vector>

namespace ronde {

/// What the paths of such files begin with: those of MPICH and of Open MPI.
inline constexpr std::array<std::string_view, 2> kSegmentNames = {"/dev/shm/mpich_shm_",
                                                                  "/dev/shm/sm_segment."};

/// Those that a process of this user has open and that still have a name; none if there is no such
/// process.
std::vector<std::string> segment_names(pid_t process);

/// Removes those of this process.
void remove_segment_names();

}  // namespace ronde
