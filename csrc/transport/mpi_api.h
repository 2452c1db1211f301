// The MPI functions that Ronde calls, as pointers, for handles of type Handle.
#pragma once

#include <dlfcn.h>

#include <string>

#include "core/error.h"

namespace ronde {

template <class Handle>
struct MpiApi {
  int (*Isend)(const void*, int, Handle type, int peer, int tag, Handle comm, Handle* request);
  int (*Irecv)(void*, int, Handle type, int peer, int tag, Handle comm, Handle* request);
  int (*Test)(Handle* request, int* flag, void* status);
  int (*Get_count)(const void* status, Handle type, int* count);
  int (*Error_string)(int code, char* text, int* length);
  int (*Get_library_version)(char* text, int* length);

  /// The global scope first, so that preloaded tracing tools and ABI translators keep working, then
  /// the libraries that `extension` depends on.
  static MpiApi load(const std::string& extension) {
    void* module = dlopen(extension.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!module) throw UnavailableError("cannot open mpi4py's module: " + std::string(dlerror()));
    MpiApi api;
    find(api.Isend, "MPI_Isend", module);
    find(api.Irecv, "MPI_Irecv", module);
    find(api.Test, "MPI_Test", module);
    find(api.Get_count, "MPI_Get_count", module);
    find(api.Error_string, "MPI_Error_string", module);
    find(api.Get_library_version, "MPI_Get_library_version", module);
    api.require_one_library(module);
    return api;
  }

  std::string version() const { return version_of(Get_library_version); }

 private:
  static constexpr int kVersionBytes = 8192;  // MPICH promises as much

  template <class Function>
  static void find(Function& function, const char* name, void* module) {
    void* address = dlsym(RTLD_DEFAULT, name);
    if (!address) address = dlsym(module, name);
    if (!address)
      throw UnavailableError(std::string("the MPI library of mpi4py has no function ") + name);
    function = reinterpret_cast<Function>(address);
  }

  template <class Function>
  static std::string version_of(Function get) {
    char text[kVersionBytes] = {};
    int length = 0;
    get(text, &length);
    return text;
  }

  void require_one_library(void* module) const {
    auto theirs = Get_library_version;
    theirs = reinterpret_cast<decltype(theirs)>(dlsym(module, "MPI_Get_library_version"));
    if (theirs && version_of(theirs) != version())
      throw UnavailableError("two MPI libraries are loaded: mpi4py uses\n  " + version_of(theirs) +
                             "\nbut the process also has\n  " + version() +
                             "\nload only one of them");
  }
};

}  // namespace ronde
