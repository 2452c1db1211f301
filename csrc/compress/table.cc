#include "compress/table.h"

#include <string>

#include "compress/cast.h"
#include "compress/fp8.h"
#include "compress/quantiser.h"
#include "core/error.h"

namespace ronde {
namespace {

struct Row {
  std::string_view name;
  std::unique_ptr<Compressor> (*make)(const KernelTable& kernels);
};

template <int bits, std::size_t block, Norm norm, Rounding rounding>
std::unique_ptr<Compressor> linear(const KernelTable& kernels) {
  return std::make_unique<Quantiser>(Quantisation{bits, block, norm, rounding}, kernels);
}

template <Code code>
std::unique_ptr<Compressor> cast(const KernelTable& kernels) {
  return std::make_unique<Cast>(code, kernels);
}

std::unique_ptr<Compressor> fp8(const KernelTable& kernels) {
  return std::make_unique<Fp8>(kernels);
}

constexpr Row kTable[] = {
    {"bf16", cast<Code::bfloat16>},
    {"fp16", cast<Code::float16>},
    {"fp8", fp8},
    {"int8", linear<8, 1024, Norm::max, Rounding::nearest>},
    {"int4", linear<4, 256, Norm::max, Rounding::nearest>},
    {"qsgd", linear<4, 512, Norm::l2, Rounding::stochastic>},
    {"ternary", linear<2, 1024, Norm::max, Rounding::stochastic>},
    {"sign", linear<1, 1024, Norm::mean, Rounding::nearest>},
};

}  // namespace

std::vector<std::string_view> compressor_names() {
  std::vector<std::string_view> names;
  for (const auto& row : kTable) names.push_back(row.name);
  return names;
}

std::unique_ptr<Compressor> make_compressor(std::string_view name, const KernelTable& kernels) {
  std::string known;
  for (const auto& row : kTable) {
    if (row.name == name) return row.make(kernels);
    known += (known.empty() ? "" : ", ") + std::string(row.name);
  }
  throw ArgumentError("no compressor '" + std::string(name) + "'; there are " + known);
}

}  // namespace ronde
