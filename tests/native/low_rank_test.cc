// The passes of low-rank compression touch nothing outside: all memory is exactly as large as it
// must be, so that a sanitizer sees it. That they are right is tests/compress/test_low_rank.py.
#include "compress/low_rank.h"

#include <cstddef>
#include <cstdio>
#include <random>
#include <vector>

#include "check.h"
#include "kernels/kernels.h"

namespace {

using namespace ronde;

void run(const LowRankShape& shape, const KernelTable& table) {
  const LowRank product(shape, table);
  const std::size_t size = shape.rows * shape.columns;
  std::vector<float> matrix(size, 0.5f), residual(size, 0.5f), out(size);
  std::vector<float> left(shape.rank * shape.rows), right(shape.rank * shape.columns, 1.0f);
  product.project(matrix, residual, right, left);
  for (const float x : left) CHECK(x == static_cast<float>(shape.columns));
  product.project(matrix, {}, right, left);
  for (const float x : left) CHECK(x == 0.5f * static_cast<float>(shape.columns));
  left.assign(left.size(), 2.0f);
  product.back_project(residual, left, right);
  for (const float x : right) CHECK(x == 2.0f * static_cast<float>(shape.rows));
  right.assign(right.size(), 0.25f);
  product.reconstruct(left, right, out, 3.0f, residual, 2);
  const float product_of_ranks = 0.5f * static_cast<float>(shape.rank);
  for (const float x : out) CHECK(x == 3.0f * product_of_ranks);
  for (const float x : residual) CHECK(x == 1.0f - product_of_ranks / 2);
  product.reconstruct(left, right, out, 1.0f, {}, 1);
  CHECK(size == 0 || out.back() == product_of_ranks);
  CHECK(orthogonalise(left, shape.rank));
}

}  // namespace

int main() {
  std::mt19937 random(42);
  const auto below = [&](std::size_t limit) { return random() % limit; };
  for (const char* simd : {"avx512", "avx2", "baseline"}) {
    const KernelTable* table = kernels(simd);
    if (!table) continue;
    for (int i = 0; i < 500; ++i)
      run({below(20), below(below(8) ? 70 : 2000), 1 + below(kMaxRank)}, *table);
  }
  std::puts("low_rank: ok");
}
