// Allreduces of several arrays as one call. The ranks agree on all of it once; then each method
// reduces its arrays in buckets, and those without a method are reduced exactly.
//
// With phase 0 the ranks learn whether any of them has values that are not finite, while a method
// feeds back, or that float32 cannot hold, in which methods compute. Then all arrays are reduced
// exactly: a step that the caller may skip must leave no trace, and nothing become infinite on the
// way. So they are while ranks have joined, which have no values for a method.
//
//   plan   what is known of a group from call to call
//   way    some arrays of it, and the method for them
#pragma once

#include <cstddef>
#include <exception>
#include <memory>
#include <vector>

#include "collective/outline.h"
#include "methods/method.h"

namespace ronde {

struct Plan {
  /// Indices of arrays that travel together.
  using Indices = std::vector<std::size_t>;

  struct Way {
    std::weak_ptr<Method> method;
    bool exact;                       // without one
    Indices members;                  // arrays, in their order
    std::vector<Indices> exactly;     // buckets of one type each
    std::vector<Indices> in_floats;   // buckets of float32
    std::vector<Parameters> buckets;  // the same
  };

  Call call;
  std::vector<Parameter> parameters;
  std::vector<Reduction> reductions;  // of each array, if it is reduced exactly
  Reduction in_floats;                // of a method
  bool averages = false;
  double growth = 1;  // how many times as large as a value a result may be, at most
  std::vector<Way> ways;

  Plan() = default;
  Plan(const Plan&) = delete;  // ways point to the parameters
  Plan& operator=(const Plan&) = delete;

  /// `method`: null for exact reduction. Once the parameters and reductions are there.
  void add(std::shared_ptr<Method> method, Indices members, std::size_t fusion_bytes);

  /// What a call does while ranks have joined: all is reduced exactly.
  std::vector<Outline> outlines() const;
};

/// A call of it.
struct GroupedCall {
  std::shared_ptr<const Plan> plan;
  Communicator& set;
  std::vector<Piece> arrays;                     // each in its own type
  std::vector<std::shared_ptr<Method>> methods;  // of the ways
  bool feeds_back;                               // one of them does

  bool exactly = false;      // once the ranks have agreed: whether all is reduced exactly
  std::exception_ptr error;  // at the end: what all ranks have refused the call with, if they have
};

Task<> reduce_group(std::shared_ptr<GroupedCall> group, Routes& routes, Operation& operation);

}  // namespace ronde
