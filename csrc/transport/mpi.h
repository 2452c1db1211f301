// Messages through the MPI library that mpi4py has started.
//
// There is no mpi.h here. Functions are found with dlsym the way mpi4py's own calls resolve,
// handles and constants come from mpi4py as numbers, and their width (4 bytes on MPICH and its
// family, 8 on Open MPI and in the MPI-5 ABI) chooses one of two instances of a template. So one
// build serves every MPI.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "transport/transport.h"

namespace ronde {

/// What Ronde takes from mpi4py, as plain numbers.
struct MpiConstants {
  std::string extension;  // the file of the module mpi4py.MPI, whose dependencies hold the library
  std::size_t handle_bytes = 0;  // of MPI_Comm, MPI_Datatype and MPI_Request: 4 or 8
  std::uint64_t byte_type = 0;   // MPI_BYTE
  int any_source = 0;
  int success = 0;
  std::size_t status_bytes = 0;
};

/// The library: its functions, and the lock that all of Ronde's calls to it hold.
class MpiLibrary {
 public:
  virtual ~MpiLibrary() = default;

  /// Throws UnavailableError if a function is missing or two different libraries answer.
  static std::shared_ptr<MpiLibrary> open(const MpiConstants& constants);

  /// A transport over a communicator (the number behind an MPI_Comm) that is Ronde's own and whose
  /// errors return.
  virtual std::shared_ptr<Transport> transport(std::uint64_t communicator, int rank, int size) = 0;

  /// The text of MPI_Get_library_version.
  virtual std::string version() = 0;

  /// MPI_THREAD_SERIALIZED is all we ask for, so our calls take turns.
  std::mutex mutex;
};

}  // namespace ronde
