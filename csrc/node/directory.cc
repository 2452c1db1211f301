#include "node/directory.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "node/heap.h"

namespace ronde {
namespace {

constexpr int kEntries = 128;  // of each rank

}  // namespace

struct Directory::Entry {
  std::uint64_t bytes;
  char address[120];
};

std::size_t Directory::bytes_for(int ranks) { return ranks * kEntries * sizeof(Entry); }

Directory::Entry& Directory::entry(int rank, std::uint16_t number) const {
  return reinterpret_cast<Entry*>(shared_)[rank * kEntries + number - 1];
}

Location Directory::enter(ConstBuffer operand) {
  const auto found = Heap::instance().find(operand.data, operand.bytes);
  if (!found) return {};
  const auto find = [&](const auto& condition) {
    return std::find_if(own_.begin(), own_.end(), condition);
  };
  auto own = find([&](const Own& other) { return other.segment.lock() == found->segment; });
  if (own == own_.end()) {
    const auto address = found->segment->address();
    if (address.size() >= sizeof(Entry::address)) return {};
    own = find([](const Own& other) {
      const auto segment = other.segment.lock();
      return !segment || segment->discarded();
    });
    if (own == own_.end()) {
      if (own_.size() == kEntries) return {};
      own = own_.emplace(own_.end());
    }
    *own = {found->segment, static_cast<std::uint16_t>(own->edition + 1)};
    auto& written = entry(rank_, static_cast<std::uint16_t>(own - own_.begin() + 1));
    written.bytes = found->segment->size();
    std::memcpy(written.address, address.c_str(), address.size() + 1);
  }
  return {static_cast<std::uint16_t>(own - own_.begin() + 1), own->edition, 0, found->offset};
}

bool Directory::settled(int rank, Location location) const {
  const auto found = known_.find({rank, location.entry});
  return found != known_.end() && found->second.edition == location.edition;
}

bool Directory::open(int rank, Location location) {
  const auto& written = entry(rank, location.entry);
  auto segment = Segment::open(written.address, written.bytes);
  const bool reachable = segment != nullptr;
  opened_[{rank, location.entry}] = {location.edition, std::move(segment)};
  return reachable;
}

void Directory::settle(bool reachable) {
  for (auto& [position, opened] : opened_) {
    if (!reachable) opened.segment = nullptr;
    known_[position] = std::move(opened);
  }
  opened_.clear();
}

std::byte* Directory::reach(int rank, Location location) const {
  if (!location) return nullptr;
  const auto& segment = known_.at({rank, location.entry}).segment;
  return segment ? segment->data() + location.offset : nullptr;
}

}  // namespace ronde
