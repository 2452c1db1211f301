// Over several machines with several ranks each: what one machine can do for itself goes through
// its memory, and each rank drives its share of the network with the ranks of the same local rank
// on the other machines.
//
//   reduce-scatter in the machine; allreduce of the own slice between the machines; allgather in
//   the machine
//
// So 2n(M-1)/M bytes cross the link of each of M machines, however many ranks it has. A short
// vector is reduced in the machine, and its sum is piggybacked on phase 0 between the machines. The
// other collectives go over the network.
#pragma once

#include <span>
#include <string_view>

#include "collective/network.h"

namespace ronde {

/// A vector that is reduced by slices, one for each rank of the machine.
class Slices {
 public:
  /// `reduction`: what the machine does.
  Slices(Lane& lane, Operation& operation, std::span<const Piece> pieces, Reduction reduction);
  /// The slices need not be even.
  Slices(Lane& lane, Operation& operation, std::span<const Piece> pieces, Reduction reduction,
         Chunks slices);

  /// Phase 0 in the machine, and its reduction. Returns the fingerprints of its ranks. The slice of
  /// this rank counts only if they are equal on all machines.
  Task<Extremes> reduce();
  /// All slices to all ranks of the machine, once `own` is reduced between the machines.
  Task<> spread();

  Buffer own() const { return own_; }
  /// Where it stands in the vector, in elements.
  Range place() const { return slices_[lane_.board()->rank()]; }

 private:
  Lane& lane_;
  Operation& operation_;
  const std::span<const Piece> pieces_;
  const Reduction reduction_;
  const Chunks slices_;
  const bool packed_;
  const Buffer vector_;
  const Buffer own_;
};

class Hierarchical final : public Network {
 public:
  using Network::Network;

  Task<> begin_allreduce(Operation& operation, std::span<const Piece> pieces, Reduction reduction,
                         std::string_view algorithm) override;

 private:
  Task<> allreduce_short(Operation& operation, std::span<const Piece> pieces, Reduction reduction);
};

}  // namespace ronde
