// The errors of Ronde. The bindings turn each type into the Python exception of the same name.
#pragma once

#include <stdexcept>
#include <string>

namespace ronde {

/// Any error of Ronde except wrong arguments.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// The ranks made calls that do not belong together. Nothing was sent, no array was written.
struct MismatchError : Error {
  using Error::Error;
};

/// A rank died, left, or gave up while others needed it.
struct RankFailedError : Error {
  using Error::Error;
};

/// A rank did not come to a call within the stall timeout.
struct StalledError : Error {
  using Error::Error;
};

/// Something optional is not there: not built, not installed, or not supported by this MPI.
struct UnavailableError : Error {
  using Error::Error;
};

/// A wrong argument, wrong on this rank alone; raised before anything is sent. ValueError in
/// Python.
struct ArgumentError : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

}  // namespace ronde
