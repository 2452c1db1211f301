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
// What is too small to gain anything is reduced exactly with its residual, and so is everything
// within one machine.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "compress/low_rank.h"
#include "methods/method.h"

namespace ronde {

class PowerSgd final : public Codec {
 public:
  PowerSgd(std::size_t rank, std::string seed) : Codec(true), rank_(rank), seed_(std::move(seed)) {}

  /// Whether low rank sends less for an array of this shape.
  bool worth_it(std::span<const std::int64_t> shape) const;
  /// The first dimension and the rest, and the rank of the result.
  LowRankShape shape_of(std::span<const std::int64_t> shape) const;

  using Codec::reduce;
  Task<> reduce(Ranks& ranks, Bucket bucket, std::span<float> residual,
                std::uint64_t step) override;

  /// A matrix in a call.
  struct Term {
    std::string name;
    LowRankShape shape;
    std::span<const float> matrix;
    std::span<float> residual;
    std::span<float> out;          // may be the matrix
    std::span<float> left;         // P, with room for as many as the shape says; so is right
    std::span<float> right;        // Q
    std::vector<float> last = {};  // Q of the last step
    bool finite = true;
  };
  // The three passes over all matrices. Between them the lefts, then the rights are summed over the
  // ranks.
  void project(std::span<Term> terms);
  void back_project(std::span<Term> terms) const;
  /// Stores about `factor` times the sums. What they leave out is, but for rounding, what the
  /// residuals of all ranks add up to. Where there is NaN or infinity all of a matrix becomes NaN.
  void reconstruct(std::span<Term> terms, int ranks, double factor);

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
  std::map<std::string, Factors> state() const;
  void load(std::map<std::string, Factors> state);

 private:
  Task<> reduce_matrices(Ranks& ranks, Bucket bucket, std::vector<std::span<float>> residuals);
  std::vector<float> right_of(const Term& term);
  void warm_start(const Term& term);

  const std::size_t rank_;
  const std::string seed_;
  mutable std::mutex mutex_;
  std::map<std::string, Factors> known_;
};

}  // namespace ronde
