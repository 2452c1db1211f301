// Memory for things that may still be written to.
//
// A message that failed half-way cannot be cancelled: a late rank may still write to the memory of
// a receive. The memory of such messages is kept until the process ends.
#pragma once

#include <memory>

namespace ronde {

void keep_until_exit(std::shared_ptr<const void> thing);

}  // namespace ronde
