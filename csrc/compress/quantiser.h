// The linear quantiser: a block of values becomes a step (float32) and small integers q, and x
// comes back as q * step.
//
//   L = 2^(bits-1) - 1,  step = norm / L,  q = x / step, rounded, between -L and L
//
//   norm max         every |x| is at most L steps. |x - q step| <= step / 2, stochastic < step.
//   norm mean        mean |x|; larger values are cut off. With 1 bit this is the scaled sign of
//                    signSGD with error feedback (Karimireddy et al. 2019).
//   norm l2          the Euclidean norm; with stochastic rounding that of QSGD (Alistarh et al.
//                    2017)
//   stochastic       up with the probability of the remainder, so right on average (within 2^-17
//                    of a step, as 16 random bits are used); not with the mean, which cuts off
//   1 bit            L = 1 and q = 1 or -1, the sign: there is no 0
//
// Bounds hold within one part in 2^16, which is for the rounding of the arithmetic itself. With
// nearest rounding and norms that cut nothing off, sent + residual = input exactly from 2 bits on,
// otherwise within one rounding.
//
// A block that holds NaN or infinity comes out as NaN in all of its values. One whose step would be
// no normal number (below 2^-126) is sent as zeros, and stays in the residual.
#pragma once

#include "compress/fixed_length.h"

namespace ronde {

struct Quantisation {
  int bits = 8;              // 1 to 8
  std::size_t block = 1024;  // elements with one step: a multiple of 128, 256 (2 or 6 bits) or 512
                             // (1, 3, 5 or 7 bits), up to 4096
  Norm norm = Norm::max;
  Rounding rounding = Rounding::nearest;
};

class Quantiser final : public FixedLength {
 public:
  /// Throws ArgumentError if there is no such quantisation.
  explicit Quantiser(const Quantisation& quantisation,
                     const KernelTable& kernels = ronde::kernels());

  std::size_t capacity(std::size_t count) const override;
  bool unbiased() const override;

 private:
  Quantisation quantisation_;
};

}  // namespace ronde
