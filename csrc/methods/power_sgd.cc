#include "methods/power_sgd.h"

#include <algorithm>

#include "collective/orders.h"
#include "compress/low_rank.h"
#include "methods/draws.h"

namespace ronde {
namespace {

std::unique_ptr<Factoring> factoring_of(Ranks& ranks, const Device& where) {
  if (where.is_gpu()) return std::make_unique<GpuFactoring>(ranks.queue(where));
  return std::make_unique<HostFactoring>();
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
  if (residual.empty()) residual = ranks.zeros(bucket.device, bucket.elements());
  Bucket matrices = bucket, rest = bucket;
  matrices.arrays.clear();
  rest.arrays.clear();
  std::vector<std::span<float>> of_matrices, of_rest;
  const auto residuals = bucket.split(residual);
  for (std::size_t i = 0; i < bucket.arrays.size(); ++i) {
    const auto& array = bucket.arrays[i];
    const bool is_matrix = worth_it(array.parameter->shape) && !ranks.on_one_machine();
    (is_matrix ? matrices : rest).arrays.push_back(array);
    (is_matrix ? of_matrices : of_rest).push_back(residuals[i]);
  }
  if (!rest.arrays.empty()) {
    const Bucket contribution = with_residuals(ranks, rest, of_rest);
    co_await ranks.allreduce(contribution);
  }
  if (!matrices.arrays.empty()) {
    const Bucket contribution = scaled(ranks, matrices);
    co_await reduce_matrices(ranks, contribution, of_matrices);
  }
}

Task<> PowerSgd::reduce_matrices(Ranks& ranks, Bucket bucket,
                                 std::vector<std::span<float>> residuals) {
  const auto& where = bucket.device;
  const auto on = factoring_of(ranks, where);
  const auto found = ranks.room<Orthogonalised>(where, bucket.arrays.size());
  std::vector<Term> terms;
  std::vector<std::span<float>> lefts, rights;
  for (std::size_t i = 0; i < bucket.arrays.size(); ++i) {
    const auto& [parameter, input, output] = bucket.arrays[i];
    const auto shape = shape_of(parameter->shape);
    lefts.push_back(ranks.room<float>(where, shape.rank * shape.rows));
    rights.push_back(ranks.room<float>(where, shape.rank * shape.columns));
    const auto last = ranks.room<float>(where, rights.back().size());
    terms.push_back({parameter->name, shape, input, residuals[i], output, lefts.back(),
                     rights.back(), last, &found[i]});
  }
  const auto last = last_steps(terms);
  co_await last;
  project(*on, terms);
  co_await ranks.combine(lefts, where, DType::float32, ReduceOp::sum);
  back_project(*on, terms);
  co_await ranks.combine(rights, where, DType::float32, ReduceOp::sum);
  reconstruct(*on, terms, found, ranks.size(), bucket.factor());
}

/// Done when it is known what the last steps of these have found.
std::shared_ptr<Work> PowerSgd::last_steps(std::span<const Term> terms) {
  std::vector<std::shared_ptr<const Outcomes>> all;
  const std::lock_guard lock(mutex_);
  for (const auto& term : terms) {
    const auto known = known_.find(term.name);
    if (known != known_.end() && known->second.latest)
      all.push_back(known->second.latest->outcomes);
  }
  return std::make_shared<Until>([all = std::move(all)] {
    return std::ranges::all_of(all, [](const auto& each) { return each->known(); });
  });
}

std::vector<std::shared_ptr<const Outcomes>> PowerSgd::latest() {
  std::vector<std::shared_ptr<const Outcomes>> all;
  const std::lock_guard lock(mutex_);
  for (const auto& [name, known] : known_) {
    if (known.latest) all.push_back(known.latest->outcomes);
  }
  return all;
}

void PowerSgd::project(Factoring& on, std::span<Term> terms) {
  for (auto& term : terms) {
    {
      const std::lock_guard lock(mutex_);
      auto& known = known_[term.name];
      finish(known);
      const auto [rows, columns, rank] = term.shape;
      if (known.rank != rank || known.columns != columns)
        known = {.right = std::make_shared<Vector>(random(term.shape, 0, term.name))};
      term.next = known.right;
      on.copy(right_of(on, term.name, known), term.last);
    }
    on.project(term);
  }
}

void PowerSgd::back_project(Factoring& on, std::span<Term> terms) const {
  for (const auto& term : terms) on.back_project(term);
}

void PowerSgd::reconstruct(Factoring& on, std::span<Term> terms,
                           std::span<const Orthogonalised> found, int ranks, double factor) {
  for (const auto& term : terms) {
    {
      const std::lock_guard lock(mutex_);
      on.orthogonalise(term);
    }
    on.reconstruct(term, static_cast<std::size_t>(ranks), static_cast<float>(factor));
  }
  const auto outcomes = on.outcomes(found);
  const std::lock_guard lock(mutex_);
  for (std::size_t i = 0; i < terms.size(); ++i) {
    auto& known = known_[terms[i].name];
    known.right = terms[i].next;
    known.latest = {terms[i].shape, outcomes, i};
  }
}

/// Looks at what the last step has found. If that was nothing, all stays as it was.
void PowerSgd::finish(Known& known) {
  if (!known.latest) return;
  const auto [shape, outcomes, number] = *std::exchange(known.latest, std::nullopt);
  const auto [finite, zeros] = outcomes->of(number);
  if (!finite) return;
  known.rank = shape.rank;
  known.columns = shape.columns;
  known.zeros = zeros;
  ++known.step;
}

/// What the next step begins with; others where nothing was found.
std::span<float> PowerSgd::right_of(Factoring& on, const std::string& name, Known& known) const {
  const auto right = on.values_of(*known.right);
  const auto zeros = std::exchange(known.zeros, 0);
  if (zeros == 0) return right;
  const auto columns = known.columns;
  const auto others =
      random({columns, columns, known.rank}, static_cast<std::uint64_t>(known.step), name);
  for (std::size_t k = 0; k < known.rank; ++k) {
    if (zeros >> k & 1)
      on.copy_from_host(std::span(others).subspan(k * columns, columns),
                        right.subspan(k * columns, columns));
  }
  return right;
}

std::vector<float> PowerSgd::random(const LowRankShape& shape, std::uint64_t step,
                                    std::string_view name) const {
  std::vector<float> right(shape.rank * shape.columns);
  draw_uniform(key_of(seed_, step, name), right);
  for (auto& value : right) value = 2 * value - 1;
  orthogonalise(right, shape.rank);
  return right;
}

std::map<std::string, PowerSgd::Factors> PowerSgd::state() {
  for (const auto& outcomes : latest()) outcomes->wait();  // not with the lock, which calls need
  const std::lock_guard lock(mutex_);
  HostFactoring on;
  std::map<std::string, Factors> state;
  for (auto& [name, known] : known_) {
    finish(known);
    auto& factors = state[name];
    factors.step = known.step;
    if (known.rank == 0) continue;
    const auto right = right_of(on, name, known);
    factors = {known.rank, known.columns, {right.begin(), right.end()}, known.step};
  }
  return state;
}

void PowerSgd::load(std::map<std::string, Factors> state) {
  std::map<std::string, Known> loaded;
  for (auto& [name, factors] : state)
    loaded[name] = {.rank = factors.rank,
                    .columns = factors.columns,
                    .right = std::make_shared<Vector>(std::move(factors.right)),
                    .step = factors.step};
  const std::lock_guard lock(mutex_);
  known_ = std::move(loaded);
}

}  // namespace ronde
