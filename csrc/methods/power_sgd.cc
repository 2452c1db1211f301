#include "methods/power_sgd.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "compress/cut.h"
#include "methods/draws.h"

namespace ronde {
namespace {

bool any(std::span<const float> values) {
  return std::any_of(values.begin(), values.end(), [](float x) { return x != 0; });
}

/// The sum is not known: nothing of it is kept, and the residual becomes what it was before, but
/// for rounding, as the matrix has been added to it.
void give_up(PowerSgd::Term& term) {
  for (std::size_t i = 0; i < term.residual.size(); ++i) {
    auto& left = term.residual[i];
    left -= term.matrix[i];
    if (!std::isfinite(left)) left = 0;
  }
  std::ranges::fill(term.out, std::numeric_limits<float>::quiet_NaN());
}

}  // namespace

LowRankShape PowerSgd::shape_of(std::span<const std::int64_t> shape) const {
  const auto rows = static_cast<std::size_t>(shape[0]);
  std::size_t columns = 1;
  for (const auto length : shape.subspan(1)) columns *= static_cast<std::size_t>(length);
  return {rows, columns, std::min({rank_, rows, columns})};
}

bool PowerSgd::worth_it(std::span<const std::int64_t> shape) const {
  if (shape.size() < 2) return false;
  const auto [rows, columns, rank] = shape_of(shape);
  return (rows + columns) * rank < rows * columns;
}

Task<> PowerSgd::reduce(Ranks& ranks, Bucket bucket, std::span<float> residual, std::uint64_t) {
  if (residual.empty()) {
    residual = ranks.room<float>(bucket.elements());
    std::ranges::fill(residual, 0.0f);
  }
  Bucket matrices = bucket, rest = bucket;
  matrices.arrays.clear();
  rest.arrays.clear();
  std::vector<std::span<float>> residuals;
  std::vector<std::vector<float>> waiting;
  std::size_t offset = 0;
  for (const auto& array : bucket.arrays) {
    const auto left = residual.subspan(offset, array.input.size());
    offset += left.size();
    if (worth_it(array.parameter->shape) && !ranks.on_one_machine()) {
      matrices.arrays.push_back(array);
      residuals.push_back(left);
    } else {
      rest.arrays.push_back(array);
      waiting.emplace_back(left.begin(), any(left) ? left.end() : left.begin());
      std::ranges::fill(left, 0.0f);
    }
  }
  if (!rest.arrays.empty()) {
    const Bucket contribution = scaled(ranks, rest, waiting);
    co_await ranks.allreduce(contribution.pieces(), contribution.reduction);
  }
  if (!matrices.arrays.empty()) {
    const Bucket contribution = scaled(ranks, matrices);
    co_await reduce_matrices(ranks, contribution, residuals);
  }
}

Task<> PowerSgd::reduce_matrices(Ranks& ranks, Bucket bucket,
                                 std::vector<std::span<float>> residuals) {
  std::vector<Term> terms;
  std::vector<std::span<float>> lefts, rights;
  for (std::size_t i = 0; i < bucket.arrays.size(); ++i) {
    const auto& [parameter, input, output] = bucket.arrays[i];
    const auto shape = shape_of(parameter->shape);
    lefts.push_back(ranks.room<float>(shape.rank * shape.rows));
    rights.push_back(ranks.room<float>(shape.rank * shape.columns));
    terms.push_back(
        {parameter->name, shape, input, residuals[i], output, lefts.back(), rights.back()});
  }
  project(terms);
  co_await ranks.combine(lefts, DType::float32, ReduceOp::sum);
  back_project(terms);
  co_await ranks.combine(rights, DType::float32, ReduceOp::sum);
  reconstruct(terms, ranks.size(), bucket.factor());
}

void PowerSgd::project(std::span<Term> terms) {
  for (auto& term : terms) {
    term.last = right_of(term);
    LowRank(term.shape).project(term.matrix, term.residual, term.last, term.left);
  }
}

void PowerSgd::back_project(std::span<Term> terms) const {
  for (auto& term : terms) {
    term.finite = orthogonalise(term.left, term.shape.rank);
    LowRank(term.shape).back_project(term.residual, term.left, term.right);
  }
}

void PowerSgd::reconstruct(std::span<Term> terms, int ranks, double factor) {
  for (auto& term : terms) {
    if (!term.finite || !all_finite(term.right)) {
      give_up(term);
      continue;
    }
    LowRank(term.shape)
        .reconstruct(term.left, term.right, term.out, static_cast<float>(factor), term.residual,
                     static_cast<std::size_t>(ranks));
    warm_start(term);
  }
}

/// What the step begins with.
std::vector<float> PowerSgd::right_of(const Term& term) {
  const std::lock_guard lock(mutex_);
  auto& known = known_[term.name];
  if (known.rank == term.shape.rank && known.columns == term.shape.columns) return known.right;
  known.step = 0;
  return random(term.shape, 0, term.name);
}

/// The next step begins with these; with others where there was nothing.
void PowerSgd::warm_start(const Term& term) {
  const auto [rows, columns, rank] = term.shape;
  std::vector<float> right(term.right.begin(), term.right.end());
  orthogonalise(right, rank);
  const std::lock_guard lock(mutex_);
  auto& known = known_[term.name];
  ++known.step;
  std::vector<float> others;
  for (std::size_t k = 0; k < rank; ++k) {
    const std::span<float> vector(right.data() + k * columns, columns);
    if (any(vector)) continue;
    if (others.empty())
      others = random(term.shape, static_cast<std::uint64_t>(known.step), term.name);
    std::copy_n(others.data() + k * columns, columns, vector.data());
  }
  known.rank = rank;
  known.columns = columns;
  known.right = std::move(right);
}

std::vector<float> PowerSgd::random(const LowRankShape& shape, std::uint64_t step,
                                    std::string_view name) const {
  std::vector<float> right(shape.rank * shape.columns);
  draw_uniform(key_of(seed_, step, name), right);
  for (auto& value : right) value = 2 * value - 1;
  orthogonalise(right, shape.rank);
  return right;
}

std::map<std::string, PowerSgd::Factors> PowerSgd::state() const {
  const std::lock_guard lock(mutex_);
  return known_;
}

void PowerSgd::load(std::map<std::string, Factors> state) {
  const std::lock_guard lock(mutex_);
  known_ = std::move(state);
}

}  // namespace ronde
