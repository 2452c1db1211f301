// What a rank contributes to a reduction that has nothing to contribute.
#pragma once

#include "core/buffer.h"
#include "core/reduction.h"

namespace ronde {

/// Whether there is a value that changes no result: not where a product multiplies each
/// contribution first.
bool has_neutral(const Reduction& reduction);

/// Such values: zeros for a sum, ones for a product, the greatest of the type for a minimum. For a
/// minimum or maximum of what is multiplied first they are so after that.
void fill_neutral(const Reduction& reduction, Buffer data);

}  // namespace ronde
