// When a call may touch what it has in the memory of GPUs, and what comes by itself there.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "collective/work.h"
#include "core/pieces.h"
#include "cuda/order.h"
#include "cuda/pack.h"

namespace ronde {

/// Done when `condition` holds.
class Until final : public Work {
 public:
  explicit Until(std::function<bool()> condition) : condition_(std::move(condition)) {}
  Progress progress() override { return condition_() ? Progress::done : Progress::idle; }

 private:
  const std::function<bool()> condition_;
};

using Orders = std::vector<cuda::Order*>;

/// Of those pieces that GPUs hold, each once.
Orders orders_of(std::span<const Piece> pieces);

/// Until all of it may be touched.
std::shared_ptr<Until> until_begun(Orders orders);

/// What is packed, and where that is unpacked, of pieces that a GPU holds.
std::vector<cuda::Array> inputs_of(std::span<const Piece> pieces);
std::vector<cuda::Array> outputs_of(std::span<const Piece> pieces);

}  // namespace ronde
