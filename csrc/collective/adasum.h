// Adasum: sums that depend on how far gradients point the same way. S. Maleki, M. Musuvathi, T.
// Mytkowicz, O. Saarikivi, T. Xu, V. Eksarevskiy, J. Ekanayake and E. Barsoum, "Scaling distributed
// training with adaptive summation", MLSys 2021.
//
//   Adasum(a, b) = (1 - a.b / 2|a|^2) a  +  (1 - a.b / 2|b|^2) b
//
// Orthogonal gradients are added, equal ones averaged. More than two are merged in a binary tree of
// neighbours. Every array has dot products, and so coefficients, of its own, whatever it is fused
// with.
//
// Nouns:
//   peers   the ranks whose gradients are merged: all, or one of each machine
//   part    of an array: as many as there are peers, as even as possible. Each peer merges its part
//           of all arrays, for all ranks
//   row     a rank's gradient, as far as this peer's parts go: one array after another
//   level   merges of the tree that do not depend on each other
//
//   scatter   each peer gets its row of every rank: an alltoall, n(P-1)/P to send
//   levels    log2 P. Each peer computes the dot products of its parts; the sum over the peers, 24
//             bytes for each merge and array, is that of the arrays; each merges its rows
//   gather    all get the last row of every peer: an allgather, n(P-1)/P to send
//
// The paper has rows half as long and half as many in each level instead, by vector halving, which
// sends as much. Here it is the same for any number of ranks, and over messages as in shared
// memory.
//
// Where each machine has equally many ranks that share memory, they reduce to their average there
// before, by slices, of which each is merged between the machines; the dot products are summed over
// the slices too. So did the paper, between the GPUs of a machine.
#pragma once

#include <span>
#include <string_view>

#include "collective/lane.h"
#include "core/pieces.h"
#include "core/reduction.h"

namespace ronde {

/// The pieces are the arrays. `algorithm` is that for the dot products, if not empty.
Task<> adasum_over_network(Lane& lane, Operation& operation, std::span<const Piece> pieces,
                           Reduction reduction, std::string_view algorithm);

/// Where all ranks share memory.
Task<> adasum_in_memory(Lane& lane, Operation& operation, std::span<const Piece> pieces,
                        Reduction reduction);

/// Where those of each machine do.
Task<> adasum_over_machines(Lane& lane, Operation& operation, std::span<const Piece> pieces,
                            Reduction reduction);

}  // namespace ronde
