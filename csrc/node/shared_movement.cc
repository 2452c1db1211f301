#include "node/shared_movement.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/kernels.h"

namespace ronde {

SharedMovement::SharedMovement(Board& board, std::uint64_t fingerprint, const Stream& stream,
                               bool rooted, const std::function<void(Note&)>& write, Choose choose)
    : Exchange(board),
      stream_(stream),
      rooted_(rooted),
      chunk_bytes_(rooted ? Board::kStageBytes * board.size() : Board::kStageBytes),
      choose_(std::move(choose)),
      first_chunk_(board.chunks()),
      sources_(board.size()) {
  auto& note = board_.new_note();
  note.input = note.output = {};
  write(note);
  if (stream.bytes > Board::kShortBytes) note.input = board_.directory().enter(stream.data);
  if (!note.input) put(0);
  enter(note, fingerprint);
}

std::size_t SharedMovement::plan() {
  wanted_ = choose_(board_);
  std::size_t longest = 0;
  bool none = true;
  direct_ = true;
  for (int rank = 0; rank < board_.size(); ++rank) {
    const std::size_t bytes = wanted_[rank].stream_bytes;
    const auto location = board_.note(rank).input;
    longest = std::max(longest, bytes);
    sources_[rank] = board_.directory().reach(rank, location);
    direct_ &= bytes == 0 || sources_[rank] != nullptr;
    none &= !location;
  }
  if (longest == 0) return 0;
  if (direct_) return 2;
  late_ = !none;
  chunk_count_ = (longest + chunk_bytes_ - 1) / chunk_bytes_;
  board_.count_chunks(chunk_count_);
  return chunk_count_ + late_;
}

bool SharedMovement::round(std::size_t number) {
  if (direct_) {
    if (number == 1) return true;
    for (int rank = 0; rank < board_.size(); ++rank) {
      const auto& [stream_bytes, begin, offset, to] = wanted_[rank];
      if (to.bytes) copy_bytes(to.data, sources_[rank] + offset, to.bytes, false);
    }
    return true;
  }
  if (late_ && number == 0) {
    if (board_.note(board_.rank()).input) put(0);
    return true;
  }
  number -= late_;
  take(number);
  if (number + 1 < chunk_count_) put(number + 1);
  return true;
}

std::byte* SharedMovement::stage(int rank, std::size_t number) const {
  return board_.stage(rooted_ ? 0 : rank, first_chunk_ + number);
}

void SharedMovement::put(std::size_t number) {
  const std::size_t begin = number * chunk_bytes_;
  if (begin >= stream_.bytes) return;
  const std::size_t length = std::min(chunk_bytes_, stream_.bytes - begin);
  std::byte* to = stage(board_.rank(), number);
  const std::size_t from = (stream_.rotation + begin) % stream_.data.bytes;
  const std::size_t first = std::min(length, stream_.data.bytes - from);
  std::memcpy(to, stream_.data.data + from, first);
  std::memcpy(to + first, stream_.data.data, length - first);
}

void SharedMovement::take(std::size_t number) {
  const std::size_t chunk = number * chunk_bytes_;
  for (int i = 1; i <= board_.size(); ++i) {
    const int rank = (board_.rank() + i) % board_.size();
    const auto& [stream_bytes, begin, offset, to] = wanted_[rank];
    const std::size_t from = std::max(chunk, begin);
    const std::size_t end = std::min(chunk + chunk_bytes_, begin + to.bytes);
    if (from >= end) continue;
    copy_bytes(to.data + (from - begin), stage(rank, number) + (from - chunk), end - from, false);
  }
}

}  // namespace ronde
