// The compressors by name.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "compress/compressor.h"
#include "kernels/kernels.h"

namespace ronde {

std::vector<std::string_view> compressor_names();

/// The compressor of that name. Throws ArgumentError, naming those there are, if there is none.
std::unique_ptr<Compressor> make_compressor(std::string_view name,
                                            const KernelTable& kernels = ronde::kernels());

}  // namespace ronde
