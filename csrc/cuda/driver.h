// The CUDA driver, libcuda.so.1, as far as Ronde needs it. It is loaded when first asked for:
// nothing is linked, and no header or library of the toolkit is needed.
#pragma once

#include <array>
#include <cstddef>
#include <string>

namespace ronde::cuda {

using Ordinal = int;                 // of a device: CUdevice
using Address = unsigned long long;  // CUdeviceptr
using Context = struct ContextTag*;  // the driver's own, as are those that follow
using Module = struct ModuleTag*;
using Function = struct FunctionTag*;
using StreamHandle = struct StreamTag*;
using EventHandle = struct EventTag*;
using Uuid = std::array<char, 16>;  // of a device, that of no other anywhere

enum class Status : int { success = 0, out_of_memory = 2, no_device = 100, not_ready = 600 };

enum class Attribute : int {
  multiprocessors = 16,
  capability_major = 75,
  capability_minor = 76,
};

enum class PointerAttribute : int { device = 9 };

inline constexpr unsigned kNonBlocking = 1;    // streams that do not wait for the default one
inline constexpr unsigned kDisableTiming = 2;  // events that are for order alone

/// Pointers to the driver's functions. Each stands here once: its name without "cu", its symbol
/// (with the version of its arguments, which every driver since CUDA 11 has), and its arguments.
#define RONDE_CUDA_DRIVER(X)                                                                       \
  X(Init, "cuInit", (unsigned))                                                                    \
  X(DriverGetVersion, "cuDriverGetVersion", (int*))                                                \
  X(GetErrorName, "cuGetErrorName", (Status, const char**))                                        \
  X(GetErrorString, "cuGetErrorString", (Status, const char**))                                    \
  X(DeviceGetCount, "cuDeviceGetCount", (int*))                                                    \
  X(DeviceGetName, "cuDeviceGetName", (char*, int, Ordinal))                                       \
  X(DeviceGetUuid, "cuDeviceGetUuid", (Uuid*, Ordinal))                                            \
  X(DeviceGetAttribute, "cuDeviceGetAttribute", (int*, Attribute, Ordinal))                        \
  X(DevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain", (Context*, Ordinal))                       \
  X(CtxPushCurrent, "cuCtxPushCurrent_v2", (Context))                                              \
  X(CtxPopCurrent, "cuCtxPopCurrent_v2", (Context*))                                               \
  X(CtxGetDevice, "cuCtxGetDevice", (Ordinal*))                                                    \
  X(ModuleLoadData, "cuModuleLoadData", (Module*, const void*))                                    \
  X(ModuleGetFunction, "cuModuleGetFunction", (Function*, Module, const char*))                    \
  X(PointerGetAttribute, "cuPointerGetAttribute", (void*, PointerAttribute, Address))              \
  X(MemAlloc, "cuMemAlloc_v2", (Address*, std::size_t))                                            \
  X(MemFree, "cuMemFree_v2", (Address))                                                            \
  X(MemHostAlloc, "cuMemHostAlloc", (void**, std::size_t, unsigned))                               \
  X(MemFreeHost, "cuMemFreeHost", (void*))                                                         \
  X(MemcpyAsync, "cuMemcpyAsync", (Address, Address, std::size_t, StreamHandle))                   \
  X(MemsetD8Async, "cuMemsetD8Async", (Address, unsigned char, std::size_t, StreamHandle))         \
  X(StreamCreate, "cuStreamCreate", (StreamHandle*, unsigned))                                     \
  X(StreamDestroy, "cuStreamDestroy_v2", (StreamHandle))                                           \
  X(StreamSynchronize, "cuStreamSynchronize", (StreamHandle))                                      \
  X(StreamWaitEvent, "cuStreamWaitEvent", (StreamHandle, EventHandle, unsigned))                   \
  X(EventCreate, "cuEventCreate", (EventHandle*, unsigned))                                        \
  X(EventDestroy, "cuEventDestroy_v2", (EventHandle))                                              \
  X(EventRecord, "cuEventRecord", (EventHandle, StreamHandle))                                     \
  X(EventElapsedTime, "cuEventElapsedTime", (float*, EventHandle, EventHandle))                    \
  X(EventQuery, "cuEventQuery", (EventHandle))                                                     \
  X(EventSynchronize, "cuEventSynchronize", (EventHandle))                                         \
  X(OccupancyMaxActiveBlocksPerMultiprocessor, "cuOccupancyMaxActiveBlocksPerMultiprocessor",      \
    (int*, Function, int, std::size_t))                                                            \
  X(LaunchKernel, "cuLaunchKernel",                                                                \
    (Function, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, StreamHandle, \
     void**, void**))

class Driver {
 public:
  /// Why there is none that can be used: no library, no device. Empty if there is one.
  static const std::string& missing();

  /// Throws UnavailableError if there is none.
  static const Driver& get();

#define RONDE_CUDA_POINTER(name, symbol, arguments) Status(*name) arguments = nullptr;
  RONDE_CUDA_DRIVER(RONDE_CUDA_POINTER)
#undef RONDE_CUDA_POINTER

  /// Throws Error unless `status` is success: what was done, and the driver's name and words for
  /// what is wrong.
  void check(Status status, const std::string& what) const {
    if (status != Status::success) fail(status, what);
  }

  /// 12090 for CUDA 12.9, the newest that it understands.
  int version() const;
  int devices() const;

 private:
  Driver();
  static const Driver& loaded();
  [[noreturn]] void fail(Status status, const std::string& what) const;

  std::string missing_;
};

}  // namespace ronde::cuda
