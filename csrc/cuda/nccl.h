// NCCL, libnccl.so.2, as far as Ronde needs it: of the system, or of the wheels nvidia-nccl-cu12
// and nvidia-nccl-cu13. As with the driver, nothing is linked, and it is loaded when first asked
// for.
//
// Nothing here waits for other ranks. A call that NCCL has begun but not done makes the
// communicator "not ready", and until it is, it takes no other call, and what was called is not yet
// on its stream: an event that is recorded before would be reached too early. Operations of a
// communicator run in the order of the calls, on whatever streams, and block their stream until the
// peers have come. A peer that never comes is released by abort() alone.
#pragma once

#include <array>
#include <cstddef>
#include <future>
#include <string>
#include <string_view>

#include "core/dtype.h"
#include "cuda/device.h"

namespace ronde::cuda {

enum class NcclStatus : int {
  success = 0,
  unhandled_cuda_error = 1,
  system_error = 2,
  internal_error = 3,
  invalid_argument = 4,
  invalid_usage = 5,
  remote_error = 6,
  in_progress = 7,
};

enum class NcclType : int {
  int8 = 0,
  uint8 = 1,
  int32 = 2,
  uint32 = 3,
  int64 = 4,
  uint64 = 5,
  float16 = 6,
  float32 = 7,
  float64 = 8,
  bfloat16 = 9,
};

enum class NcclOp : int { sum = 0, product = 1, max = 2, min = 3 };

/// Throws ArgumentError for the types that NCCL cannot reduce: bool, int16 and uint16.
NcclType nccl_type(DType dtype);
NcclOp nccl_op(ReduceOp op);

/// What ranks have in common that are to form a communicator: one rank makes it, the others are
/// given its bytes.
struct NcclId {
  std::array<char, 128> bytes{};
};

/// ncclConfig_t as of 2.14. Newer ones append fields, and for those that a struct of this size and
/// version lacks the library takes its own defaults:
///
///   2.17  cgaClusterSize, minCTAs, maxCTAs, netName
///   2.18  splitShare
///   2.25  trafficClass
///   2.27  commName, collnetEnable, CTAPolicy, shrinkShare, nvlsCTAs
///   2.28  nChannelsPerNetPeer, nvlinkCentricSched
///   2.31  graphUsageMode, numRmaCtx, maxP2pPeers, graphStreamOrdering (some of them sooner),
///         launchOrderImplicit, numRmaSig, rmaEagerInit, hostCftMode, nvlsHostMode
struct NcclConfig {
  std::size_t size = sizeof(NcclConfig);
  unsigned magic = 0xcafebeef;
  unsigned version = 21400;
  int blocking = 0;
};

using NcclHandle = struct NcclTag*;  // ncclComm_t

/// The functions, each once: what it returns, its name without "nccl", and its arguments.
#define RONDE_NCCL(X)                                                                             \
  X(NcclStatus, GetVersion, (int*))                                                               \
  X(const char*, GetErrorString, (NcclStatus))                                                    \
  X(NcclStatus, GetUniqueId, (NcclId*))                                                           \
  X(NcclStatus, CommInitRank, (NcclHandle*, int, NcclId, int))                                    \
  X(NcclStatus, CommGetAsyncError, (NcclHandle, NcclStatus*))                                     \
  X(NcclStatus, CommAbort, (NcclHandle))                                                          \
  X(NcclStatus, CommDestroy, (NcclHandle))                                                        \
  X(NcclStatus, CommCount, (NcclHandle, int*))                                                    \
  X(NcclStatus, GroupStart, ())                                                                   \
  X(NcclStatus, GroupEnd, ())                                                                     \
  X(NcclStatus, Send, (const void*, std::size_t, NcclType, int, NcclHandle, StreamHandle))        \
  X(NcclStatus, Recv, (void*, std::size_t, NcclType, int, NcclHandle, StreamHandle))              \
  X(NcclStatus, AllReduce,                                                                        \
    (const void*, void*, std::size_t, NcclType, NcclOp, NcclHandle, StreamHandle))                \
  X(NcclStatus, ReduceScatter,                                                                    \
    (const void*, void*, std::size_t, NcclType, NcclOp, NcclHandle, StreamHandle))                \
  X(NcclStatus, AllGather, (const void*, void*, std::size_t, NcclType, NcclHandle, StreamHandle)) \
  X(NcclStatus, Broadcast,                                                                        \
    (const void*, void*, std::size_t, NcclType, int, NcclHandle, StreamHandle))                   \
  X(NcclStatus, Reduce,                                                                           \
    (const void*, void*, std::size_t, NcclType, NcclOp, int, NcclHandle, StreamHandle))

/// Those that are null before NCCL 2.14 (the last of them before 2.13).
#define RONDE_NEWER_NCCL(X)                                                       \
  X(NcclStatus, CommInitRankConfig, (NcclHandle*, int, NcclId, int, NcclConfig*)) \
  X(NcclStatus, CommFinalize, (NcclHandle))                                       \
  X(const char*, GetLastError, (NcclHandle))

class Nccl {
 public:
  /// The file of the library, say that of a wheel. It is taken before the system's, but not before
  /// one that the process has already: two would each start threads and hold memory. Throws Error
  /// if it comes too late, after the first use.
  static void look_in(std::string file);

  /// Why there is none that can be used. Empty if there is one.
  static const std::string& missing();

  /// Throws UnavailableError if there is none.
  static const Nccl& get();

#define RONDE_NCCL_POINTER(result, name, arguments) result(*name) arguments = nullptr;
  RONDE_NCCL(RONDE_NCCL_POINTER)
  RONDE_NEWER_NCCL(RONDE_NCCL_POINTER)
#undef RONDE_NCCL_POINTER

  /// Throws Error unless `status` is success or in_progress: what was done, the name and words of
  /// what is wrong, and what NCCL says of it.
  void check(NcclStatus status, std::string_view what) const {
    if (status != NcclStatus::success && status != NcclStatus::in_progress)
      throw_error(status, what, nullptr);
  }
  [[noreturn]] void throw_error(NcclStatus status, std::string_view what,
                                NcclHandle communicator) const;

  /// 22809 for NCCL 2.28.9.
  int version() const;
  /// "2.28.9"
  std::string version_text() const;
  /// Whether several ranks may use one GPU: from 2.30 on, if the user asks for it.
  bool shares_gpus() const;
  NcclId unique_id() const;

 private:
  Nccl();
  static const Nccl& loaded();

  std::string missing_;
};

/// What a rank gives to a collective and where it wants the result, in memory of the device:
/// `count` elements of each rank.
struct NcclBuffers {
  const void* in = nullptr;
  void* out = nullptr;
  std::size_t count = 0;
  DType dtype = DType::float32;
};

/// One rank of a communicator. Its calls come from one thread at a time.
class NcclCommunicator {
 public:
  /// Begins to connect the ranks that have this id. It is ready when all have come. Before
  /// NCCL 2.14 there is no other way than to wait for them here.
  NcclCommunicator(const Device& device, const NcclId& id, int size, int rank);

  /// Waits up to a second until all that was called has been done and the other ranks end too, and
  /// otherwise aborts. Waits for its memory to be freed as long again.
  ~NcclCommunicator();

  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;

  int size() const { return size_; }
  int rank() const { return rank_; }

  /// Whether NCCL has done what it was called for: connected the ranks, or put the operations on
  /// their streams. Throws Error if it failed, or was aborted.
  bool ready() const;

  /// What NCCL has found wrong since. Empty if nothing.
  std::string error() const;

  /// Ends operations that wait for peers, whatever they have done until then, and whatever is
  /// called from now on.
  void abort();

  // Each also works in place: with in == out, or, if one of them is longer, with the other at this
  // rank's part of it.

  void all_reduce(StreamHandle stream, const NcclBuffers& buffers, ReduceOp op);
  void reduce(StreamHandle stream, const NcclBuffers& buffers, ReduceOp op, int root);
  /// `in` has size() times `count` elements, of which this rank gets its own `count`, reduced.
  void reduce_scatter(StreamHandle stream, const NcclBuffers& buffers, ReduceOp op);

  // These move elements of all types.

  /// `out` has size() times `count` elements.
  void all_gather(StreamHandle stream, const NcclBuffers& buffers);
  void broadcast(StreamHandle stream, const NcclBuffers& buffers, int root);

  // A send blocks its stream until it is received, by as many bytes. What is to happen at once,
  // both directions of an exchange, is called in one NcclGroup.

  void send(StreamHandle stream, const void* from, std::size_t bytes, int peer);
  void receive(StreamHandle stream, void* to, std::size_t bytes, int peer);

 private:
  template <class F>
  void call(const char* what, F f);
  NcclHandle handle() const;
  NcclStatus state() const;
  bool finish() const;
  std::future<void> end(bool done);

  const Device& device_;
  const int size_, rank_;
  NcclHandle handle_ = nullptr;  // null when aborted
};

/// Calls of this thread between its beginning and end() are one operation.
class NcclGroup {
 public:
  NcclGroup();
  /// Ends it, if an exception came before end().
  ~NcclGroup();
  NcclGroup(const NcclGroup&) = delete;
  NcclGroup& operator=(const NcclGroup&) = delete;

  void end();

 private:
  bool open_ = true;
};

}  // namespace ronde::cuda
