#include "collective/coding.h"

#include "core/error.h"

namespace ronde {

void Coding::refuse(int from, const std::string& why) const {
  throw Error("compressed allreduce, rank " + std::to_string(summand_.rank) + " <- " +
              std::to_string(from) + ": " + why);
}

}  // namespace ronde
