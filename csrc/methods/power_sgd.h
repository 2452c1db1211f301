// Matrices as products of two thin ones: PowerSGD (Vogels, Karimireddy, Jaggi 2019).
//
//   P = M Q          M: a gradient plus its residual, rows x columns; Q: what the last step has
//                    found
//   Q = M^T P        P: summed over the ranks, its columns made orthonormal
//   sum = P Q^T      Q: summed over the ranks
//
// Only P and Q travel, rank (rows + columns) numbers for rows columns, and as sums: so exact
// allreduces do it, at a cost that does not grow with the number of ranks. compress/low_rank.h has
// the arithmetic.
//
// All of it happens where the matrices are, on a GPU too: then nobody on the host waits to see what
// a step has found, which the next step looks at.
//
// What is too small to gain anything is reduced exactly with its residual, and so is everything
// within one machine.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "methods/factoring.h"
#include "methods/method.h"

namespace ronde {

class PowerSgd final : public Codec {
 public:
  PowerSgd(std::size_t rank, std::string seed) : Codec(true), rank_(rank), seed_(std::move(seed)) {}

  /// Whether low rank sends less for an array of this shape.
  bool worth_it(std::span<const std::int64_t> shape) const;
  /// The first dimension and the rest, and the rank of the result.
  LowRankShape shape_of(std::span<const std::int64_t> shape) const;

  bool takes_gpus(const Ranks&) const override { return true; }
  using Codec::reduce;
  Task<> reduce(Ranks& ranks, Bucket bucket, std::span<float> residual,
                std::uint64_t step) override;

  // The three passes over all matrices. Between them the lefts, then the rights are summed over the
  // ranks.
  void project(Factoring& on, std::span<Term> terms);
  void back_project(Factoring& on, std::span<Term> terms) const;
  /// Stores about `factor` times the sums. What they leave out is, but for rounding, what the
  /// residuals of all ranks add up to. Where there is NaN or infinity all of a matrix becomes NaN.
  /// `found`: of all terms, which point to it.
  void reconstruct(Factoring& on, std::span<Term> terms, std::span<const Orthogonalised> found,
                   int ranks, double factor);

  /// The right vectors of a first step, orthonormal, the same on every machine: of uniform numbers,
  /// which need no functions that libraries compute differently.
  std::vector<float> random(const LowRankShape& shape, std::uint64_t step,
                            std::string_view name) const;

  /// What a parameter is known by.
  struct Factors {
    std::size_t rank = 0, columns = 0;  // none before the first step has succeeded
    std::vector<float> right;           // orthonormal
    std::int64_t step = 0;
  };
  /// On the host. Waits for the last steps, if they are under way on a GPU.
  std::map<std::string, Factors> state();
  void load(std::map<std::string, Factors> state);

 private:
  /// The same, where it was last used.
  struct Known {
    std::size_t rank = 0, columns = 0;
    std::shared_ptr<Vector> right;
    std::int64_t step = 0;
    std::uint32_t zeros = 0;  // vectors that others are to replace (bit k: vector k)

    /// The last step, until somebody has looked at what it has found.
    struct Latest {
      LowRankShape shape;
      std::shared_ptr<const Outcomes> outcomes;
      std::size_t number;
    };
    std::optional<Latest> latest = {};
  };

  Task<> reduce_matrices(Ranks& ranks, Bucket bucket, std::vector<std::span<float>> residuals);
  std::shared_ptr<Work> last_steps(std::span<const Term> terms);
  std::vector<std::shared_ptr<const Outcomes>> latest();
  static void finish(Known& known);
  std::span<float> right_of(Factoring& on, const std::string& name, Known& known) const;

  const std::size_t rank_;
  const std::string seed_;
  std::mutex mutex_;
  std::map<std::string, Known> known_;
};

}  // namespace ronde
