// The residuals of this rank, by the names of parameters: what payloads have left out.
//
// A residual is in units of what a rank contributes, scaled by the factor before: a sum of the
// residuals of all ranks, divided by their number for an average, is what they would still add to
// the result. So they can go to other ranks, of a job of another size too.
//
// Those of the arrays of a bucket are one *vector*, which is where the bucket is. Where ranks share
// memory, each uses a part of its vector, unless the method is per rank. When an array comes in
// another bucket, or ranks are placed otherwise, its residual is added to the next contribution of
// this rank (it is *unplaced* until then), as other parts of it than before may be used.
//
// A residual is *in use* from the submission of a call to its end. Meanwhile nobody else may have
// it.
#pragma once

#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "methods/method.h"
#include "methods/vector.h"

namespace ronde {

/// A rank among others: `local_size` of them share memory with it.
struct Placement {
  int rank, size, local_rank, local_size;
  static Placement of(const Communicator& set) {
    return {set.rank(), set.size(), set.local_rank(), set.local_size()};
  }
  bool operator==(const Placement&) const = default;
};

/// Names and elements, in the order of a vector.
using Parts = std::vector<std::pair<std::string, std::size_t>>;

/// How a vector is used.
struct Use {
  Placement where;
  bool whole;  // by this rank; otherwise ranks that share memory have a part each, or none
  Parts parts;
  bool operator==(const Use&) const = default;
};

class Residuals : public std::enable_shared_from_this<Residuals> {
 public:
  /// What is known of a parameter.
  struct Residual {
    std::string name;
    std::size_t elements = 0;
    std::optional<std::vector<float>> unplaced;
    std::optional<bool> averaged;    // over the ranks, when it was last used
    std::shared_ptr<Vector> vector;  // once there is one, with this residual
    std::size_t offset = 0;          // in it
    std::shared_ptr<const Use> use;

    /// On the host, and so are all of the vector from then on.
    std::span<float> kept() const { return vector->on_host().subspan(offset, elements); }
  };
  struct State {
    std::vector<Residual> residuals;
    std::optional<Placement> where;  // when last used
  };

  struct Found {
    std::shared_ptr<Vector> vector;
    std::span<float> values;                // of the vector, where the bucket is
    std::vector<std::vector<float>> added;  // for each array, or nothing
  };

  /// Those of these arrays are in use as long as the result lives, which the parameters outlive.
  /// Throws ArgumentError where they cannot be kept, or are in use.
  std::shared_ptr<const void> use(std::span<const Parameters> buckets);

  /// The vector of the bucket's arrays, to be updated; and what is to be added to this rank's
  /// contribution now. `per_rank`: each rank uses all of its vector.
  Found of(Ranks& ranks, const Bucket& bucket, bool per_rank);

  /// All that is left of the bucket's arrays, to be added to this rank's contribution now.
  std::vector<std::vector<float>> taken(const Bucket& bucket);

  std::vector<std::string> names() const;

  // These throw Error while a residual that they need is in use.

  /// Nothing if there is no such parameter.
  std::optional<std::vector<float>> read(const std::string& name) const;
  void rescale(float factor);

  /// A copy.
  State state() const;
  void load(State state);

 private:
  struct Known {
    std::shared_ptr<Vector> vector;
    std::shared_ptr<const Use> use;
  };

  bool in_use(std::string_view name) const;
  void require_unused() const;
  const Residual* find(const std::string& name) const;
  std::vector<Residual*> entries(const Parts& parts);
  Known place(Use use, std::span<Residual* const> residuals);

  mutable std::mutex mutex_;  // calls of several threads may use it, of other parameters
  State state_;
  std::unordered_map<std::string, std::size_t> numbers_;  // in state_.residuals
  std::map<Parts, Known> vectors_;
  std::list<std::set<std::string_view>> uses_;  // names, of each call
};

}  // namespace ronde
