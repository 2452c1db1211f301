// The arithmetic of PowerSGD (power_sgd.h), apart from the sums over ranks: on the host, or
// enqueued on the GPU that has the matrices. All memory is of that kind, and the bits are the same.
// compress/low_rank.h says what is computed.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cuda/order.h"
#include "cuda/scratch.h"
#include "kernels/kernels.h"
#include "methods/vector.h"

namespace ronde {

/// A matrix in a call.
struct Term {
  std::string name;
  LowRankShape shape;
  std::span<const float> matrix;
  std::span<float> residual;
  std::span<float> out;               // may be the matrix
  std::span<float> left;              // P, with room for as many as the shape says; so have these:
  std::span<float> right, last;       // Q, and that of the last step
  Orthogonalised* found = nullptr;    // what has become of Q, for the next step
  std::shared_ptr<Vector> next = {};  // Q for the next step
};

/// What has become of the vectors of some matrices: known at once on the host, and of a GPU when
/// its stream has come so far.
class Outcomes {
 public:
  explicit Outcomes(std::span<const Orthogonalised> here) : here_(here.begin(), here.end()) {}
  Outcomes(const cuda::Queue& queue, std::span<const Orthogonalised> there);

  bool known() const { return !come_ || come_->reached(); }
  void wait() const {
    if (come_) come_->synchronise();
  }
  /// Of one of them. Waits, unless it is known.
  Orthogonalised of(std::size_t number) const;

 private:
  std::vector<Orthogonalised> here_;
  cuda::Scratch pinned_;
  std::optional<cuda::Event> come_;
};

class Factoring {
 public:
  virtual ~Factoring() = default;

  /// Residual and matrix become the residual, and their product with the last Q is P.
  virtual void project(const Term& term) = 0;
  /// P becomes orthonormal, and Q is the product of the residual with it.
  virtual void back_project(const Term& term) = 0;
  /// The next Q becomes Q, orthonormal, unless there is NaN or infinity.
  virtual void orthogonalise(const Term& term) = 0;
  /// The output becomes `factor` times the sum over so many ranks, and the residual what is left.
  /// Where the last step has found NaN or infinity, the output becomes NaN, and the residual what
  /// it was, but for rounding.
  virtual void reconstruct(const Term& term, std::size_t ranks, float factor) = 0;

  virtual void copy(std::span<const float> from, std::span<float> to) = 0;
  virtual void copy_from_host(std::span<const float> from, std::span<float> to) = 0;
  virtual std::span<float> values_of(Vector& vector) = 0;
  virtual std::shared_ptr<const Outcomes> outcomes(std::span<const Orthogonalised> found) = 0;
};

class HostFactoring final : public Factoring {
 public:
  void project(const Term& term) override;
  void back_project(const Term& term) override;
  void orthogonalise(const Term& term) override;
  void reconstruct(const Term& term, std::size_t ranks, float factor) override;
  void copy(std::span<const float> from, std::span<float> to) override;
  void copy_from_host(std::span<const float> from, std::span<float> to) override;
  std::span<float> values_of(Vector& vector) override { return vector.on_host(); }
  std::shared_ptr<const Outcomes> outcomes(std::span<const Orthogonalised> found) override;
};

class GpuFactoring final : public Factoring {
 public:
  explicit GpuFactoring(const cuda::Queue& queue) : queue_(queue) {}

  void project(const Term& term) override;
  void back_project(const Term& term) override;
  void orthogonalise(const Term& term) override;
  void reconstruct(const Term& term, std::size_t ranks, float factor) override;
  void copy(std::span<const float> from, std::span<float> to) override;
  void copy_from_host(std::span<const float> from, std::span<float> to) override;
  std::span<float> values_of(Vector& vector) override;
  std::shared_ptr<const Outcomes> outcomes(std::span<const Orthogonalised> found) override;

 private:
  const cuda::Queue queue_;
};

}  // namespace ronde
