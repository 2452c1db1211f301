// How collectives go: over the network, in the memory of a machine, or both. A route makes the task
// of a call, phase 0 included; `operation` is that call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "collective/lane.h"
#include "collective/staging.h"
#include "core/buffer.h"
#include "core/bytes.h"
#include "core/pieces.h"
#include "core/reduction.h"
#include "cuda/received.h"
#include "schedule/schedule.h"

namespace ronde {

/// What ranks contributed, one after another. Contributions are counted in rows, whose length all
/// ranks know: a row may hold no bytes at all and still counts.
struct Gathered {
  std::vector<std::size_t> rows;               // of each rank
  Bytes data;                                  // empty where this rank gets no result
  std::shared_ptr<cuda::Received> there = {};  // the data instead, where it came to a GPU
};

/// Rows for ranks, one after another in `data`.
struct Rows {
  ConstBuffer data;
  std::span<const std::size_t> counts;  // of each rank
  std::size_t bytes = 0;                // of a row
};

/// Rows of this rank.
struct Contribution {
  ConstBuffer data;
  std::size_t rows = 0;
  std::size_t row_bytes = 0;
};

/// What a rank gets of a scatter.
struct Scattered {
  std::size_t rows = 0;
  Bytes data;
  std::vector<std::int64_t> header;
};

/// The words for all ranks that a root may send along with a scatter, at most.
constexpr std::size_t kHeaderWords = 80;

class Route {
 public:
  explicit Route(Lane& lane) : lane_(lane) {}
  virtual ~Route() = default;
  Route(const Route&) = delete;
  Route& operator=(const Route&) = delete;

  // What is in the memory of a GPU goes over NCCL (nccl_route.h) or is staged on the host
  // (staging.h), unless the route takes it as it is.
  // `algorithm` names one for schedules; empty unless the caller has chosen it.

  /// Reduces the pieces as one vector.
  Task<> allreduce(Operation& operation, std::span<const Piece> pieces, Reduction reduction,
                   std::string_view algorithm);
  /// `input` is a vector cut into `chunks`; `output` gets this rank's chunk of the reduction.
  Task<> reduce_scatter(Operation& operation, ConstBuffer input, Buffer output,
                        const Chunks& chunks, Reduction reduction, std::string_view algorithm);
  /// The output of other ranks than the root is not touched.
  Task<> reduce(Operation& operation, Piece piece, Reduction reduction, int root,
                std::string_view algorithm);
  Task<> broadcast(Operation& operation, Buffer data, int root, std::string_view algorithm);
  Task<Gathered> allgather(Operation& operation, Contribution mine, std::string_view algorithm);
  Task<Gathered> gather(Operation& operation, Contribution mine, int root,
                        std::string_view algorithm);
  /// Rows and header are the root's; elsewhere they may be empty.
  Task<Scattered> scatter(Operation& operation, Rows all, std::span<const std::int64_t> header,
                          int root, std::string_view algorithm);
  Task<Gathered> alltoall(Operation& operation, Rows all, std::string_view algorithm);
  /// Phase 0 and nothing else.
  virtual Task<> barrier(Operation& operation) { return lane_.agree(operation); }

 protected:
  virtual Task<> begin_allreduce(Operation& operation, std::span<const Piece> pieces,
                                 Reduction reduction, std::string_view algorithm) = 0;
  virtual Task<> begin_reduce_scatter(Operation& operation, ConstBuffer input, Buffer output,
                                      const Chunks& chunks, Reduction reduction,
                                      std::string_view algorithm) = 0;
  virtual Task<> begin_reduce(Operation& operation, Piece piece, Reduction reduction, int root,
                              std::string_view algorithm) = 0;
  virtual Task<> begin_broadcast(Operation& operation, Buffer data, int root,
                                 std::string_view algorithm) = 0;
  virtual Task<Gathered> begin_allgather(Operation& operation, Contribution mine,
                                         std::string_view algorithm) = 0;
  virtual Task<Gathered> begin_gather(Operation& operation, Contribution mine, int root,
                                      std::string_view algorithm) = 0;
  virtual Task<Scattered> begin_scatter(Operation& operation, Rows all,
                                        std::span<const std::int64_t> header, int root,
                                        std::string_view algorithm) = 0;
  virtual Task<Gathered> begin_alltoall(Operation& operation, Rows all,
                                        std::string_view algorithm) = 0;

  /// Whether it takes memory of GPUs.
  virtual bool takes_gpus() const { return false; }

  Lane& lane_;

 private:
  bool stages(ConstBuffer memory) const { return on_gpu(memory) && !takes_gpus(); }

  // Over NCCL, if it does them; else with copies on the host.
  Task<> stage_allreduce(Operation& operation, std::span<const Piece> pieces, Reduction reduction,
                         std::string_view algorithm);
  Task<> stage_reduce_scatter(Operation& operation, ConstBuffer input, Buffer output,
                              const Chunks& chunks, Reduction reduction,
                              std::string_view algorithm);
  Task<> stage_reduce(Operation& operation, Piece piece, Reduction reduction, int root,
                      std::string_view algorithm);
  Task<> stage_broadcast(Operation& operation, Buffer data, int root, std::string_view algorithm);
  Task<Gathered> stage_allgather(Operation& operation, Contribution mine,
                                 std::string_view algorithm);
  Task<Gathered> stage_gather(Operation& operation, Contribution mine, int root,
                              std::string_view algorithm);
  Task<Scattered> stage_scatter(Operation& operation, Rows all,
                                std::span<const std::int64_t> header, int root,
                                std::string_view algorithm);
  Task<Gathered> stage_alltoall(Operation& operation, Rows all, std::string_view algorithm);
};

}  // namespace ronde
