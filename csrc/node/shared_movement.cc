#include "node/shared_movement.h"

#include <algorithm>
#include <utility>

#include "core/round.h"
#include "kernels/kernels.h"

namespace ronde {
namespace {

// What one draws a ticket for.
constexpr std::size_t kTicketBytes = 64 << 10;

}  // namespace

SharedMovement::SharedMovement(Board& board, std::uint64_t fingerprint, const Stream& stream,
                               bool rooted, const std::function<void(Note&)>& write, Choose choose,
                               Buffer copy)
    : SharedCollective(board),
      stream_(stream),
      rooted_(rooted),
      chunk_bytes_(rooted ? Board::kStageBytes * board.size() : Board::kStageBytes),
      choose_(std::move(choose)),
      first_chunk_(board.chunks()),
      sources_(board.size()) {
  auto& note = board_.new_note();
  write(note);
  if (stream.bytes > Board::kShortBytes) note.input = board_.directory().enter(stream.data);
  if (copy.bytes > Board::kShortBytes) note.output = board_.directory().enter(copy);
  if (!note.input) copy_in(0);
  enter(note, fingerprint);
}

std::size_t SharedMovement::plan() {
  wanted_ = choose_(board_);
  std::size_t received = 0;
  direct_ = true;
  for (int rank = 0; rank < board_.size(); ++rank) {
    const std::size_t bytes = wanted_[rank].stream_bytes;
    longest_ = std::max(longest_, bytes);
    received += wanted_[rank].to.bytes;
    sources_[rank] = board_.directory().reach(rank, board_.note(rank).input);
    direct_ &= bytes == 0 || sources_[rank] != nullptr;
  }
  streaming_ = received * board_.size() >= kStreamBytes;
  chunk_count_ = (longest_ + chunk_bytes_ - 1) / chunk_bytes_;
  if (chunk_count_ == 0) {
    keep_own(0);
    return 0;
  }
  // What a rank keeps needs no other rank.
  sources_[board_.rank()] = stream_.data.data;
  if (direct_) {
    if (!find_outputs()) outputs_.clear();
    return 2;
  }
  begin_stages(chunk_count_);
  return chunk_count_;
}

bool SharedMovement::round(std::size_t number) {
  if (direct_) {
    if (number == 1) return true;
    return outputs_.empty() ? copy_directly() : copy_by_ticket();
  }
  copy_out(number);
  keep_own(number);
  if (number + 1 < chunk_count_) copy_in(number + 1);
  return true;
}

/// Whether every rank but the root can be given its copy by anybody.
bool SharedMovement::find_outputs() {
  if (!rooted_) return false;
  for (int rank = 0; rank < board_.size(); ++rank) {
    if (sources_[rank]) continue;
    std::byte* output = board_.directory().reach(rank, board_.note(rank).output);
    if (!output) return false;
    outputs_.push_back(output);
  }
  if (outputs_.empty()) return false;
  streaming_ = longest_ * board_.size() >= kStreamBytes;  // whoever copies
  board_.begin_tickets((longest_ + kTicketBytes - 1) / kTicketBytes);
  return true;
}

/// The next piece of what this rank wants; whether it was the last.
bool SharedMovement::copy_directly() {
  const auto& [stream_bytes, begin, offset, to] = wanted_[copying_];
  const std::size_t length = std::min(kDirectBytes, to.bytes - copied_);
  if (length) {
    copy_bytes(to.data + copied_, sources_[copying_] + offset + copied_, length, streaming_);
  }
  copied_ += length;
  if (copied_ < to.bytes) return false;
  copied_ = 0;
  return ++copying_ == board_.size();
}

/// Whether no work is left.
bool SharedMovement::copy_by_ticket() {
  const auto source = std::find_if(sources_.begin(), sources_.end(), [](auto* at) { return at; });
  for (int i = 0; i < kTicketsAtOnce; ++i) {
    const std::size_t begin = board_.draw_ticket() * kTicketBytes;
    if (begin >= longest_) return true;
    const std::size_t length = std::min(kTicketBytes, longest_ - begin);
    for (auto* output : outputs_) copy_bytes(output + begin, *source + begin, length, streaming_);
  }
  return false;
}

std::byte* SharedMovement::stage(int rank, std::size_t number) const {
  return board_.stage(rooted_ ? 0 : rank, first_chunk_ + number);
}

void SharedMovement::copy_in(std::size_t number) {
  const std::size_t begin = number * chunk_bytes_;
  if (begin >= stream_.bytes) return;
  const std::size_t length = std::min(chunk_bytes_, stream_.bytes - begin);
  std::byte* to = stage(board_.rank(), number);
  const std::size_t from = (stream_.rotation + begin) % stream_.data.bytes;
  const std::size_t first = std::min(length, stream_.data.bytes - from);
  const bool streaming = board_.streams(first_chunk_ + number);
  copy_bytes(to, stream_.data.data + from, first, streaming);
  copy_bytes(to + first, stream_.data.data, length - first, streaming);
}

void SharedMovement::copy_out(std::size_t number) {
  const std::size_t chunk = number * chunk_bytes_;
  Board::Reading reading(board_, first_chunk_ + number);
  for (int i = 1; i < board_.size(); ++i) {
    const int rank = (board_.rank() + i) % board_.size();
    const auto& [stream_bytes, begin, offset, to] = wanted_[rank];
    const std::size_t from = std::max(chunk, begin);
    const std::size_t end = std::min(chunk + chunk_bytes_, begin + to.bytes);
    if (from >= end) continue;
    copy_bytes(to.data + (from - begin), stage(rank, number) + (from - chunk), end - from,
               streaming_);
    reading.add(end - from);
  }
}

/// A share of its own part for each chunk, so that a chunk is read from memory once.
void SharedMovement::keep_own(std::size_t number) {
  const auto& [stream_bytes, begin, offset, to] = wanted_[board_.rank()];
  const std::size_t chunks = std::max<std::size_t>(chunk_count_, 1);
  const std::size_t share = rounded((to.bytes + chunks - 1) / chunks, kCacheLine);
  const std::size_t from = std::min(number * share, to.bytes);
  const std::size_t length = std::min(share, to.bytes - from);
  if (length) copy_bytes(to.data + from, stream_.data.data + offset + from, length, streaming_);
}

}  // namespace ronde
