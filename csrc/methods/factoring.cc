#include "methods/factoring.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "compress/low_rank.h"
#include "cuda/low_rank.h"
#include "cuda/upload.h"

namespace ronde {

// Outcomes ----------------------------------------------------------------------------------------

Outcomes::Outcomes(const cuda::Queue& queue, std::span<const Orthogonalised> there) {
  const auto& [device, stream] = queue;
  pinned_ =
      cuda::ScratchPool::of(device, cuda::Memory::Kind::pinned).take(stream, there.size_bytes());
  device.copy(stream, pinned_.data(), there.data(), there.size_bytes());
  come_.emplace(device).record(stream);
}

Orthogonalised Outcomes::of(std::size_t number) const {
  if (!come_) return here_[number];
  wait();
  return reinterpret_cast<const Orthogonalised*>(pinned_.data())[number];
}

// HostFactoring -----------------------------------------------------------------------------------

namespace {

std::uint32_t zeros_of(std::span<const float> vectors, std::size_t count) {
  const std::size_t length = vectors.size() / count;
  std::uint32_t zeros = 0;
  for (std::size_t k = 0; k < count; ++k) {
    const auto vector = vectors.subspan(k * length, length);
    if (std::ranges::all_of(vector, [](float x) { return x == 0; })) zeros |= 1u << k;
  }
  return zeros;
}

void give_up(const Term& term) {
  for (std::size_t i = 0; i < term.residual.size(); ++i) {
    auto& left = term.residual[i];
    left -= term.matrix[i];
    if (!std::isfinite(left)) left = 0;
  }
  std::ranges::fill(term.out, std::numeric_limits<float>::quiet_NaN());
}

}  // namespace

void HostFactoring::project(const Term& term) {
  LowRank(term.shape).project(term.matrix, term.residual, term.last, term.left);
}

void HostFactoring::back_project(const Term& term) {
  ronde::orthogonalise(term.left, term.shape.rank);
  LowRank(term.shape).back_project(term.residual, term.left, term.right);
}

void HostFactoring::orthogonalise(const Term& term) {
  std::vector<float> vectors(term.right.begin(), term.right.end());
  *term.found = {ronde::orthogonalise(vectors, term.shape.rank), 0};
  if (!term.found->finite) return;
  term.found->zeros = zeros_of(vectors, term.shape.rank);
  copy(vectors, values_of(*term.next));
}

void HostFactoring::reconstruct(const Term& term, std::size_t ranks, float factor) {
  if (!term.found->finite) return give_up(term);
  LowRank(term.shape).reconstruct(term.left, term.right, term.out, factor, term.residual, ranks);
}

void HostFactoring::copy(std::span<const float> from, std::span<float> to) {
  std::ranges::copy(from, to.begin());
}

void HostFactoring::copy_from_host(std::span<const float> from, std::span<float> to) {
  copy(from, to);
}

std::shared_ptr<const Outcomes> HostFactoring::outcomes(std::span<const Orthogonalised> found) {
  return std::make_shared<Outcomes>(found);
}

// GpuFactoring ------------------------------------------------------------------------------------

void GpuFactoring::project(const Term& term) {
  cuda::LowRank(queue_.device, term.shape)
      .project(queue_.stream, term.matrix.data(), term.residual.data(), term.last.data(),
               term.left.data());
}

void GpuFactoring::back_project(const Term& term) {
  const auto& [rows, columns, rank] = term.shape;
  auto* const left = term.left.data();
  cuda::orthogonalise(queue_.device, queue_.stream, {left, left, rank, rows}, term.found);
  cuda::LowRank(queue_.device, term.shape)
      .back_project(queue_.stream, term.residual.data(), left, term.right.data());
}

void GpuFactoring::orthogonalise(const Term& term) {
  const auto& [rows, columns, rank] = term.shape;
  auto* const next = values_of(*term.next).data();
  cuda::orthogonalise(queue_.device, queue_.stream, {term.right.data(), next, rank, columns},
                      term.found);
}

void GpuFactoring::reconstruct(const Term& term, std::size_t ranks, float factor) {
  cuda::LowRank(queue_.device, term.shape)
      .reconstruct(queue_.stream,
                   {.left = term.left.data(),
                    .right = term.right.data(),
                    .factor = factor,
                    .ranks = ranks,
                    .finite = &term.found->finite,
                    .matrix = term.matrix.data()},
                   term.out.data(), term.residual.data());
}

void GpuFactoring::copy(std::span<const float> from, std::span<float> to) {
  queue_.device.copy(queue_.stream, to.data(), from.data(), from.size_bytes());
}

void GpuFactoring::copy_from_host(std::span<const float> from, std::span<float> to) {
  cuda::upload(queue_.device, queue_.stream, std::as_writable_bytes(to).data(),
               std::as_bytes(from));
}

std::span<float> GpuFactoring::values_of(Vector& vector) {
  return vector.on_device(queue_.device, queue_.stream);
}

std::shared_ptr<const Outcomes> GpuFactoring::outcomes(std::span<const Orthogonalised> found) {
  return std::make_shared<Outcomes>(queue_, found);
}

}  // namespace ronde
