// What a call does on every rank, but for its values, as data: enough for a rank that has joined,
// and has none, to take part with neutral ones.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "collective/call.h"
#include "collective/route.h"
#include "collective/routes.h"
#include "core/reduction.h"
#include "schedule/schedule.h"

namespace ronde {

/// One collective.
struct Outline {
  std::optional<Collective> collective;  // a barrier has none
  std::string algorithm;                 // empty unless the caller has chosen it
  Reduction reduction;
  std::size_t bytes = 0;            // of the vector; of a row, where ranks may have any number
  std::vector<std::size_t> counts;  // bytes of each piece of an allreduce; else of each rank:
                                    // elements of a reduce-scatter, no rows of an alltoall
  int root = -1;                    // a rank of the set

  /// Of pieces of so many bytes.
  static Outline allreduce(std::vector<std::size_t> pieces, const Reduction& reduction,
                           std::string_view algorithm = {});

  template <class Archive, class Self>
  static void each_field(Archive& archive, Self& self) {
    archive(self.collective, self.algorithm, self.reduction, self.bytes, self.counts, self.root);
  }
};

/// A call, for those that do not make it.
struct Description {
  Call call;
  std::vector<Outline> outlines;  // one after another; none where it is for all ranks
  bool fusable = false;           // an asynchronous allreduce that may be fused
  bool scheduled = false;         // an asynchronous call, for which an algorithm is named

  template <class Archive, class Self>
  static void each_field(Archive& archive, Self& self) {
    archive(self.call, self.outlines, self.fusable, self.scheduled);
  }
};

/// A route on which nothing moves: it takes down which collectives are begun.
class Recording final : public Route {
 public:
  using Route::Route;

  std::vector<Outline> outlines;

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
  Task<> barrier(Operation& operation) override;

 private:
  bool takes_gpus() const override { return true; }  // it only counts
  Outline& add(Collective collective, std::string_view algorithm, std::size_t bytes, int root = -1);
  Task<> begin_allreduce(Operation& operation, std::span<const Piece> pieces, Reduction reduction,
                         std::string_view algorithm) override;
  Task<> begin_reduce_scatter(Operation& operation, ConstBuffer input, Buffer output,
                              const Chunks& chunks, Reduction reduction,
                              std::string_view algorithm) override;
  Task<> begin_reduce(Operation& operation, Piece piece, Reduction reduction, int root,
                      std::string_view algorithm) override;
};

/// Why a call cannot go on without these ranks, which have joined; empty where it can. `members`:
/// the ranks of the set in the job.
std::string refusal(const Description& description, const std::vector<int>& joined,
                    const std::vector<int>& members);

/// The task of a rank that has joined.
Task<> take_part(Routes& routes, Operation& operation, std::vector<Outline> outlines);

}  // namespace ronde
