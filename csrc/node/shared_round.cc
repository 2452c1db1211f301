#include "node/shared_round.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "kernels/kernels.h"

namespace ronde {

SharedRound::SharedRound(Board& board, std::uint64_t fingerprint, std::span<std::uint64_t> words,
                         Pieces pieces, const Reduction& reduction)
    : SharedCollective(board),
      words_(words),
      pieces_(std::move(pieces)),
      reduction_(reduction),
      ins_(board.size()) {
  auto& note = board_.new_note();
  std::memcpy(note.payload, words_.data(), words_.size_bytes());
  std::byte* const data = note.payload + words_.size_bytes();
  pieces_.for_range(0, pieces_.bytes(), [&](std::size_t offset, const Piece& piece) {
    copy_bytes(data + offset, piece.input.data, piece.input.bytes);
  });
  enter(note, fingerprint);
}

bool SharedRound::round(std::size_t) {
  const std::array<std::uint64_t, 3> first{words_[0], words_[1], words_[2]};
  for (int rank = 0; rank < board_.size(); ++rank) {
    const auto* const theirs = reinterpret_cast<const std::uint64_t*>(board_.note(rank).payload);
    for (std::size_t i = 0; i < words_.size(); ++i) words_[i] = std::min(words_[i], theirs[i]);
  }
  if (std::ranges::equal(first, words_.first<3>())) reduce();
  return true;
}

void SharedRound::reduce() {
  pieces_.for_range(0, pieces_.bytes(), [&](std::size_t offset, const Piece& piece) {
    for (int rank = 0; rank < board_.size(); ++rank)
      ins_[rank] = board_.note(rank).payload + words_.size_bytes() + offset;
    void* out = piece.output.data;
    reduce_many(reduction_, {&out, 1}, ins_, piece.input.bytes / size_of(reduction_.dtype), false);
  });
}

}  // namespace ronde
