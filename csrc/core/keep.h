// Memory for things that may still be written to.
//
// A message that failed half-way cannot be called back: a rank that wakes up late may still write
// where a receive points. What belongs to such messages is kept until the process ends.
#pragma once

#include <memory>

namespace ronde {

void keep_for_ever(std::shared_ptr<const void> thing);

}  // namespace ronde
