#include "core/keep.h"

#include <mutex>
#include <utility>
#include <vector>

namespace ronde {

void keep_until_exit(std::shared_ptr<const void> thing) {
  static std::mutex mutex;
  static auto& kept = *new std::vector<std::shared_ptr<const void>>;  // never destroyed
  std::lock_guard lock(mutex);
  kept.push_back(std::move(thing));
}

}  // namespace ronde
