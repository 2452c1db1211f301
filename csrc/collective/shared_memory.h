// The collectives of ranks that are all on one machine: each is a shared collective on the board
// (node/), phase 0 included.
#pragma once

#include <string_view>

#include "collective/route.h"

namespace ronde {

class SharedMemory final : public Route {
 public:
  using Route::Route;

  Task<> begin_allreduce(Operation& operation, std::span<const Piece> pieces, Reduction reduction,
                         std::string_view algorithm) override;
  Task<> begin_reduce_scatter(Operation& operation, ConstBuffer input, Buffer output,
                              const Chunks& chunks, Reduction reduction,
                              std::string_view algorithm) override;
  Task<> begin_reduce(Operation& operation, Piece piece, Reduction reduction, int root,
                      std::string_view algorithm) override;
  Task<> begin_broadcast(Operation& operation, Buffer data, int root,
                         std::string_view algorithm) override;
  Task<Gathered> begin_allgather(Operation& operation, Contribution mine,
                                 std::string_view algorithm) override;
  Task<Gathered> begin_gather(Operation& operation, Contribution mine, int root,
                              std::string_view algorithm) override;
  Task<Scattered> begin_scatter(Operation& operation, Rows all,
                                std::span<const std::int64_t> header, int root,
                                std::string_view algorithm) override;
  Task<Gathered> begin_alltoall(Operation& operation, Rows all,
                                std::string_view algorithm) override;

 private:
  std::uint64_t begin(Operation& operation, std::uint64_t extent, std::size_t bytes);
  Task<Gathered> collect(Operation& operation, Contribution mine, int root);
};

}  // namespace ronde
