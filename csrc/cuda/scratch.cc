#include "cuda/scratch.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <iterator>
#include <limits>
#include <string>
#include <utility>

#include "core/error.h"

namespace ronde::cuda {
namespace {

/// Few sizes, so that memory can be used again, and at most a quarter more than is asked for: four
/// from each power of two to the next.
std::size_t size_class(std::size_t bytes) {
  constexpr std::size_t kLeast = 512;
  if (bytes <= kLeast) return kLeast;
  if (bytes > std::numeric_limits<std::size_t>::max() / 2) return bytes;  // there is no such memory
  const std::size_t step = std::bit_floor(bytes - 1) / 4;
  return (bytes + step - 1) / step * step;
}

}  // namespace

// Scratch -----------------------------------------------------------------------------------------

Scratch::Scratch(ScratchPool& pool, std::unique_ptr<Block> block, std::size_t bytes)
    : pool_(&pool), block_(std::move(block)), bytes_(bytes) {}

Scratch& Scratch::operator=(Scratch&& other) noexcept {
  if (this == &other) return *this;
  give_back();
  pool_ = other.pool_;
  block_ = std::move(other.block_);
  bytes_ = std::exchange(other.bytes_, 0);
  idle_ = std::exchange(other.idle_, false);
  return *this;
}

Scratch::~Scratch() { give_back(); }

std::byte* Scratch::data() const { return block_ ? block_->memory.data() : nullptr; }

void Scratch::end_use() {
  block_->released.record(block_->stream);
  idle_ = true;
}

void Scratch::give_back_after(StreamHandle stream) {
  if (block_) pool_->give_back(std::move(block_), stream);
}

void Scratch::give_back() {
  if (block_) pool_->give_back(std::move(block_), idle_);
}

// ScratchPool -------------------------------------------------------------------------------------

ScratchPool::ScratchPool(const Device& device, Memory::Kind kind) : device_(device), kind_(kind) {}

ScratchPool::~ScratchPool() {
  try {
    trim();
  } catch (const Error&) {  // the driver has ended
  }
}

ScratchPool& ScratchPool::of(const Device& device, Memory::Kind kind) {
  using Key = std::pair<Ordinal, Memory::Kind>;
  static auto& mutex = *new std::mutex;
  static auto& all = *new std::map<Key, std::unique_ptr<ScratchPool>>;  // never destroyed
  const std::lock_guard lock(mutex);
  auto& pool = all[{device.ordinal(), kind}];
  if (!pool) pool = std::make_unique<ScratchPool>(device, kind);
  return *pool;
}

template <class Allocated>
std::unique_ptr<Allocated> ScratchPool::allocate(std::size_t bytes) {
  const auto before = usage();
  for (const auto kept : {Kept::reached, Kept::on_our_streams}) {
    try {
      return std::make_unique<Allocated>(device_, kind_, bytes);
    } catch (const Error&) {  // most likely the memory is out; anything else is thrown again below
    }
    trim(kept);
  }
  try {
    return std::make_unique<Allocated>(device_, kind_, bytes);
  } catch (const Error& error) {
    throw Error(std::string(error.what()) + "; " + std::to_string(before.in_use) +
                " bytes of scratch are in use, and " +
                std::to_string(before.cached - usage().cached) +
                " that were cached have been freed first");
  }
}

Scratch ScratchPool::take(StreamHandle stream, std::size_t bytes) {
  auto block = find(stream, size_class(bytes));
  if (!block) block = allocate<Block>(size_class(bytes));
  block->stream = stream;
  const std::lock_guard lock(mutex_);
  usage_.in_use += block->memory.size();
  return {*this, std::move(block), bytes};
}

std::unique_ptr<Scratch::Block> ScratchPool::find(StreamHandle stream, std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  for (auto of_size = cached_.lower_bound(bytes);
       of_size != cached_.end() && of_size->first / 2 <= bytes; ++of_size) {
    auto& blocks = of_size->second;
    auto found = blocks.end();
    if (kind_ == Memory::Kind::device)
      found = std::ranges::find_if(blocks, [&](auto& b) { return b->stream == stream; });
    if (found == blocks.end())
      found = std::ranges::find_if(blocks, [](auto& b) { return b->released.reached(); });
    if (found == blocks.end()) continue;
    auto block = std::move(*found);
    blocks.erase(found);
    usage_.cached -= block->memory.size();
    return block;
  }
  return nullptr;
}

std::unique_ptr<Memory> ScratchPool::memory(std::size_t bytes) { return allocate<Memory>(bytes); }

void ScratchPool::give_back(std::unique_ptr<Block> block, bool idle) noexcept {
  const bool recorded = idle || record(*block, block->stream);
  keep(std::move(block), recorded);
}

void ScratchPool::give_back(std::unique_ptr<Block> block, StreamHandle callers) noexcept {
  const bool recorded = record(*block, callers);
  block->stream = nullptr;
  keep(std::move(block), recorded);
}

bool ScratchPool::record(Block& block, StreamHandle stream) noexcept {
  try {
    block.released.record(stream);
    return true;
  } catch (const Error&) {  // the driver has ended, or the device failed: nothing uses it any more
    return false;
  }
}

void ScratchPool::keep(std::unique_ptr<Block> block, bool recorded) noexcept {
  const std::size_t bytes = block->memory.size();
  const std::lock_guard lock(mutex_);
  usage_.in_use -= bytes;
  if (!recorded) return;
  usage_.cached += bytes;
  cached_[bytes].push_back(std::move(block));
}

ScratchPool::Usage ScratchPool::usage() const {
  const std::lock_guard lock(mutex_);
  return usage_;
}

void ScratchPool::trim(Kept which) {
  Blocks freed;
  {
    const std::lock_guard lock(mutex_);
    for (auto& [bytes, blocks] : cached_) {
      const auto goes = [&](const auto& block) {
        return which == Kept::all || (which == Kept::on_our_streams && block->stream) ||
               block->released.reached();
      };
      const auto kept = std::ranges::stable_partition(blocks, std::not_fn(goes));
      usage_.cached -= kept.size() * bytes;
      std::ranges::move(kept, std::back_inserter(freed));
      blocks.erase(kept.begin(), kept.end());
    }
  }
  for (const auto& block : freed) block->released.synchronise();
}

}  // namespace ronde::cuda
