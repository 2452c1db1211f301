// The products of low-rank compression on a device, against those of the processor, bit for bit.
#include "cuda/low_rank.h"

#include <cstdio>

#include "compress/low_rank.h"
#include "on_device.h"

namespace {

using namespace ronde;
using namespace ronde::cuda;

using Floats = std::vector<float>;

std::span<const std::byte> bytes_of(const Floats& all) { return std::as_bytes(std::span(all)); }

class Checks {
 public:
  /// All three passes, of random numbers.
  void run(const LowRankShape& shape, bool feedback) {
    const ronde::LowRank here(shape);
    const cuda::LowRank there(device_, shape);
    const auto kind = random_() % 4;
    const auto matrix = floats(shape.rows * shape.columns, kind);
    auto residual = feedback ? floats(matrix.size(), kind) : Floats();
    auto left = floats(shape.rank * shape.rows, 1), right = floats(shape.rank * shape.columns, 1);
    const auto behind = random_() % 4 * sizeof(float);
    const OnDevice m(device_, stream_, bytes_of(matrix), behind);
    const OnDevice e(device_, stream_, bytes_of(residual), random_() % 4 * sizeof(float));
    const auto residual_there = feedback ? at(e) : nullptr;
    {
      const OnDevice q(device_, stream_, bytes_of(right), behind);
      const OnDevice p(device_, stream_, left.size() * sizeof(float), behind);
      here.project(matrix, residual, right, left);
      there.project(stream_, at(m), residual_there, at(q), at(p));
      CHECK(alike(p, left));
      CHECK(alike(e, residual));
      CHECK(alike(q, right) && alike(m, matrix));
    }
    {
      const OnDevice p(device_, stream_, bytes_of(left), behind);
      const OnDevice q(device_, stream_, right.size() * sizeof(float), behind);
      here.back_project(matrix, left, right);
      there.back_project(stream_, at(m), at(p), at(q));
      CHECK(alike(q, right));
      CHECK(alike(p, left) && alike(m, matrix));
    }
    Floats out(matrix.size());
    const OnDevice p(device_, stream_, bytes_of(left), behind);
    const OnDevice q(device_, stream_, bytes_of(right), behind);
    const OnDevice o(device_, stream_, out.size() * sizeof(float), behind);
    const float factor = random_() % 2 ? 1.0f : 0.3f;
    const std::size_t ranks = 1 + random_() % 5;
    here.reconstruct(left, right, out, factor, residual, ranks);
    there.reconstruct(stream_, {at(p), at(q), factor, ranks}, at(o), residual_there);
    CHECK(alike(o, out));
    CHECK(alike(e, residual));
    CHECK(alike(p, left) && alike(q, right));

    const std::uint32_t yes = 1, no = 0;
    const OnDevice finite(device_, stream_, std::as_bytes(std::span(&yes, 1)));
    const OnDevice infinite(device_, stream_, std::as_bytes(std::span(&no, 1)));
    here.reconstruct(left, right, out, factor, residual, ranks);
    there.reconstruct(stream_, {at(p), at(q), factor, ranks, flag(finite), at(m)}, at(o),
                      residual_there);
    CHECK(alike(o, out) && alike(e, residual) && alike(m, matrix));
    for (std::size_t i = 0; i < residual.size(); ++i) {
      residual[i] -= matrix[i];
      if (!std::isfinite(residual[i])) residual[i] = 0;
    }
    // In place.
    there.reconstruct(stream_, {at(p), at(q), factor, ranks, flag(infinite), at(m)}, at(m),
                      residual_there);
    CHECK(alike(m, Floats(matrix.size(), std::nanf(""))) && alike(e, residual));
    ++cases;
  }

  void run_orthogonalise(std::size_t count, std::size_t length) {
    auto vectors = floats(count * length, random_() % 3);
    for (std::size_t k = 1; k < count; ++k) {
      if (random_() % 4) continue;  // otherwise it is one of those before it, or nothing
      const float factor = random_() % 2 ? 3.0f : 0.0f;
      for (std::size_t i = 0; i < length; ++i)
        vectors[k * length + i] = vectors[(k - 1) * length + i] * factor;
    }
    if (random_() % 8 == 0 && length > 0) {
      const float wrong[] = {std::numeric_limits<float>::infinity(), std::nanf("")};
      vectors[random_() % vectors.size()] = wrong[random_() % 2];
    }
    const auto before = vectors;
    const bool expected = ronde::orthogonalise(vectors, count);
    std::uint32_t zeros = 0;
    for (std::size_t k = 0; k < count; ++k) {
      const std::span vector(vectors.data() + k * length, length);
      if (std::ranges::all_of(vector, [](float x) { return x == 0; })) zeros |= 1u << k;
    }
    for (const bool in_place : {false, true}) {
      const OnDevice from(device_, stream_, bytes_of(before), random_() % 4 * sizeof(float));
      const OnDevice elsewhere(device_, stream_, bytes_of(Floats(before.size(), 7)));
      const OnDevice& to = in_place ? from : elsewhere;
      const OnDevice found(device_, stream_, sizeof(Orthogonalised));
      cuda::orthogonalise(device_, stream_, {at(from), at(to), count, length},
                          reinterpret_cast<Orthogonalised*>(found.data()));
      Orthogonalised said;
      std::memcpy(&said, found.bytes().data(), sizeof(said));
      CHECK(said.finite == (expected ? 1 : 0));
      CHECK(!expected || said.zeros == zeros);
      CHECK(alike(to, expected || in_place ? vectors : Floats(before.size(), 7)));
      CHECK(in_place || alike(from, before));
      ++cases;
    }
  }

  std::size_t below(std::size_t limit) { return random_() % limit; }
  int cases = 0;

 private:
  static float* at(const OnDevice& on_device) { return reinterpret_cast<float*>(on_device.data()); }

  static const std::uint32_t* flag(const OnDevice& on_device) {
    return reinterpret_cast<const std::uint32_t*>(on_device.data());
  }

  static bool alike(const OnDevice& there, const Floats& here) {
    return same(DType::float32, there.bytes(), bytes_of(here), true);
  }

  /// Some of them tiny, zeros, integers, or infinite and NaN (kind 3).
  Floats floats(std::size_t count, std::size_t kind) {
    Floats all(count);
    std::normal_distribution<float> normal;
    for (auto& x : all) {
      x = normal(random_);
      if (kind == 1) x *= std::exp2f(4 * normal(random_));
      if (kind == 2) x = std::round(x) * 0x1p-140f;
      if (kind == 3 && random_() % 512 == 0)
        x = std::bit_cast<float>(static_cast<std::uint32_t>(random_()));
      if (random_() % 16 == 0) x = random_() % 2 ? 0.0f : -0.0f;
    }
    return all;
  }

  cuda::Device& device_ = cuda::Device::get(0);
  const Stream stream_{device_};
  std::mt19937_64 random_{seed()};
};

}  // namespace

int main() {
  Checks checks;
  const std::size_t sizes[] = {0, 1, 2, 3, 4, 7, 15, 16, 17, 33, 65, 130};
  for (const std::size_t rows : sizes) {
    for (const std::size_t columns : sizes)
      checks.run({rows, columns, 1 + checks.below(5)}, checks.below(2));
  }
  for (std::size_t rank = 1; rank <= kMaxRank; ++rank)
    checks.run({1 + checks.below(90), 1 + checks.below(90), rank}, rank % 2);
  // Many tiles, many groups of rows, and more than all blocks have at once.
  for (const std::size_t columns : {511, 512, 513, 1030, 2100, 4100, 5000})
    checks.run({1 + checks.below(20), columns, 1 + checks.below(6)}, checks.below(2));
  for (const std::size_t rows : {255, 256, 259, 517, 1100})
    checks.run({rows, 1 + checks.below(40), 1 + checks.below(6)}, checks.below(2));
  checks.run({700, 300, 2}, true);
  checks.run({90, 4097, 5}, true);
  for (const std::size_t length : {0, 1, 7, 8, 9, 100, 1791, 1792, 1793, 5000}) {
    for (const std::size_t count : {1, 2, 4, 7}) checks.run_orthogonalise(count, length);
  }
  checks.run_orthogonalise(kMaxRank, 200);
  std::printf("low_rank: %d cases\n", checks.cases);
}
