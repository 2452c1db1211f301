#include "node/heap.h"

#include <pthread.h>

#include <algorithm>
#include <iterator>
#include <limits>
#include <new>
#include <string>

#include "core/error.h"
#include "core/round.h"

namespace ronde {
namespace {

constexpr std::size_t kSmallestSegment = 1 << 20;
constexpr std::size_t kLargestGrowth = 64 << 20;  // beyond that a segment is as long as its block
constexpr std::size_t kSpare = 64 << 20;

}  // namespace

Heap& Heap::instance() {
  static Heap* heap = new Heap;  // never destroyed: arrays may outlive everything
  return *heap;
}

Heap::Heap() { pthread_atfork(nullptr, nullptr, begin_anew); }

void Heap::begin_anew() {
  auto& heap = instance();
  new (&heap.mutex_) std::mutex;  // another thread of the parent may have held it
  heap.parents_.merge(heap.regions_);
  heap.used_ = heap.reserved_ = 0;
}

std::byte* Heap::allocate(std::size_t bytes) {
  if (bytes > std::numeric_limits<std::size_t>::max() / 2)
    throw UnavailableError("no shared memory of " + std::to_string(bytes) + " bytes");
  bytes = rounded(std::max<std::size_t>(bytes, 1), kCacheLine);
  std::lock_guard lock(mutex_);
  for (auto& [begin, region] : regions_) {
    if (auto* block = cut(region, bytes)) return block;
  }
  // Segments double, so that many small blocks make few of them.
  const std::size_t growth = std::clamp(reserved_, kSmallestSegment, kLargestGrowth);
  const auto least = rounded(bytes, kPage);
  std::shared_ptr<Segment> segment;
  try {
    segment = Segment::create(std::max(least, growth));
  } catch (const UnavailableError&) {
    if (least >= growth) throw;
    segment = Segment::create(least);
  }
  const auto* begin = segment->data();
  auto& region = regions_[begin];
  region.free[0] = segment->size();
  reserved_ += segment->size();
  region.segment = std::move(segment);
  return cut(region, bytes);
}

/// The first free range that is long enough, or null.
std::byte* Heap::cut(Region& region, std::size_t bytes) {
  const auto found = std::find_if(region.free.begin(), region.free.end(),
                                  [&](const auto& hole) { return hole.second >= bytes; });
  if (found == region.free.end()) return nullptr;
  const auto [offset, length] = *found;
  region.free.erase(found);
  if (length > bytes) region.free[offset + bytes] = length - bytes;
  region.used[offset] = bytes;
  used_ += bytes;
  return region.segment->data() + offset;
}

void Heap::free(std::byte* block) {
  std::lock_guard lock(mutex_);
  const auto after = regions_.upper_bound(block);
  if (after == regions_.begin()) return;  // the parent's
  auto& region = std::prev(after)->second;
  if (block >= region.segment->data() + region.segment->size()) return;
  const auto used = region.used.find(static_cast<std::size_t>(block - region.segment->data()));
  std::size_t offset = used->first, length = used->second;
  region.used.erase(used);
  used_ -= length;
  auto next = region.free.upper_bound(offset);
  if (next != region.free.end() && next->first == offset + length) {
    length += next->second;
    next = region.free.erase(next);
  }
  if (next != region.free.begin()) {
    const auto before = std::prev(next);
    if (before->first + before->second == offset) {
      offset = before->first;
      length += before->second;
    }
  }
  region.free[offset] = length;
  if (region.used.empty()) trim();
}

void Heap::trim() {
  for (auto it = regions_.begin(); it != regions_.end();) {
    const std::size_t size = it->second.segment->size();
    if (it->second.used.empty() && reserved_ - size >= 2 * used_ + kSpare) {
      reserved_ -= size;
      it->second.segment->discard();
      it = regions_.erase(it);
    } else {
      ++it;
    }
  }
}

std::optional<Heap::Location> Heap::find(const std::byte* data, std::size_t bytes) const {
  std::lock_guard lock(mutex_);
  const auto after = regions_.upper_bound(data);
  if (after == regions_.begin()) return std::nullopt;
  const auto& segment = std::prev(after)->second.segment;
  const auto offset = static_cast<std::size_t>(data - segment->data());
  if (offset >= segment->size() || bytes > segment->size() - offset) return std::nullopt;
  return Location{segment, offset};
}

}  // namespace ronde
