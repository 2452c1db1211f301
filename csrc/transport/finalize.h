// A forked child is no rank, but mpi4py would end MPI in it: it has registered that with Py_AtExit,
// which cannot be undone. The child would hang, or end the job.
#pragma once

#include <string>

namespace ronde {

/// Finds where mpi4py's module (a file) keeps the addresses of the MPI functions that it asks at
/// its end. To be called before a fork: what it needs may be locked in the child.
void find_finalize(const std::string& extension);

/// In the child: what was found answers from now on that MPI has been finalised.
void skip_finalize();

}  // namespace ronde
