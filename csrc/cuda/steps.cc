#include "cuda/steps.h"

namespace ronde::cuda {

bool Steps::passed(std::uint64_t step) {
  while (passed_ < step) {
    if (recorded_ == passed_) {
      event_.record(stream_);
      recorded_ = added_;
    }
    if (!event_.reached()) return false;
    passed_ = recorded_;
  }
  return true;
}

}  // namespace ronde::cuda
