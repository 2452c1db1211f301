// Collectives over the network: phase 0, then a schedule, chosen by what the link costs.
#pragma once

#include <string_view>

#include "collective/execution.h"
#include "collective/route.h"

namespace ronde {

/// Runs a schedule between the ranks of a transport, which is one of the lane's, after phase 0.
Task<> run_on(Lane& lane, Transport& transport, Operation& operation, Collective collective,
              const Layout& layout, Operands operands, Element element, std::string_view algorithm);

/// Whether the ranks still have to find out what the link costs, for a collective of so many bytes.
bool needs_link(Lane& lane, std::size_t bytes);
/// Finds out, if they have to.
Task<> know_link(Lane& lane, Operation& operation, std::size_t bytes);

/// Whether an allreduce of so many bytes that go over the network is piggybacked on phase 0.
bool piggybacks(Lane& lane, std::size_t bytes, std::size_t element_bytes);

/// An allreduce that is piggybacked on phase 0. Every rank reduces for itself, in the order of the
/// ranks.
Task<> reduce_piggybacked(Lane& lane, Operation& operation, Extremes said, Piece vector,
                          Reduction reduction);

class Network : public Route {
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
  Task<> run(Operation& operation, Collective collective, const Layout& layout, Operands operands,
             Element element, std::string_view algorithm);
  Task<> run_first(Operation& operation, Collective collective, const Layout& layout,
                   Operands operands, Element element, std::string_view algorithm);
  Task<Gathered> collect(Operation& operation, Collective collective, Contribution mine, int root,
                         std::string_view algorithm);
};

}  // namespace ronde
