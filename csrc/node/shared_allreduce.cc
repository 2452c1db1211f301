#include "node/shared_allreduce.h"

#include <algorithm>
#include <cstring>

#include "kernels/kernels.h"

namespace ronde {
namespace {

// Up to here every rank reduces everything: cheaper than a second barrier.
constexpr std::size_t kShortBytes = 4096;
constexpr std::size_t kCacheLine = 64;
// The last rank never waits: after so many chunks it looks up, so that it can be interrupted.
constexpr int kTurns = 64;

}  // namespace

SharedAllreduce::SharedAllreduce(Board& board, std::uint64_t fingerprint, ConstBuffer input,
                                 Buffer output, const Reduction& reduction)
    : board_(board),
      input_(input),
      output_(output),
      reduction_(reduction),
      chunk_count_((input.bytes + Board::kStageBytes - 1) / Board::kStageBytes),
      first_chunk_(board.chunks()) {
  board_.say(fingerprint);
  start(0);
}

std::size_t SharedAllreduce::bytes_of(std::size_t chunk) const {
  return std::min(Board::kStageBytes, input_.bytes - begin_of(chunk));
}

/// An iteration is what lies between two barriers. The last one has no barrier behind it: the next
/// call cannot touch what is copied out here before its own first barrier.
void SharedAllreduce::start(std::size_t iteration) {
  iteration_ = iteration;
  if (iteration >= 2) copy_out(iteration - 2);
  if (iteration < chunk_count_) copy_in(iteration);
  if (iteration >= 1 && iteration <= chunk_count_) reduce_slice(iteration - 1);
  if (iteration <= chunk_count_) board_.arrive();
}

bool SharedAllreduce::advance() {
  for (int turn = 0; turn < kTurns && board_.passed(); ++turn) {
    if (iteration_ == 0) {
      agreed_ = compare();
      if (!agreed_) return true;
      board_.count_chunks(chunk_count_);  // only now is it sure that all ranks count alike
      if (chunk_count_ == 0) return true;
      if (input_.bytes <= kShortBytes) {
        reduce_range(output_.data, first_chunk_, 0, input_.bytes);
        return true;
      }
    }
    start(iteration_ + 1);
    if (iteration_ == chunk_count_ + 1) return true;
  }
  return false;
}

bool SharedAllreduce::compare() const {
  const auto mine = board_.said(board_.rank());
  for (int rank = 0; rank < board_.size(); ++rank) {
    if (board_.said(rank) != mine) return false;
  }
  return true;
}

void SharedAllreduce::copy_in(std::size_t chunk) {
  const std::size_t bytes = bytes_of(chunk);
  std::byte* stage = board_.stage(board_.rank(), first_chunk_ + chunk);
  std::memcpy(stage, input_.data + begin_of(chunk), bytes);
  prescale(reduction_, stage, bytes / size_of(reduction_.dtype));
}

/// This rank's slice of a chunk. Slices are cut at cache lines.
void SharedAllreduce::reduce_slice(std::size_t chunk) {
  const std::size_t bytes = bytes_of(chunk);
  const std::size_t lines = (bytes + kCacheLine - 1) / kCacheLine;
  const auto cut = [&](int rank) {
    return std::min(bytes, lines * rank / board_.size() * kCacheLine);
  };
  const std::size_t begin = cut(board_.rank()), end = cut(board_.rank() + 1);
  reduce_range(board_.result(first_chunk_ + chunk) + begin, first_chunk_ + chunk, begin, end);
}

/// Bytes `begin` to `end` of everybody's stage, reduced in rank order.
void SharedAllreduce::reduce_range(std::byte* to, std::uint64_t stage, std::size_t begin,
                                   std::size_t end) {
  const std::size_t count = (end - begin) / size_of(reduction_.dtype);
  const std::byte* left = board_.stage(0, stage) + begin;
  if (board_.size() == 1) std::memcpy(to, left, end - begin);
  for (int rank = 1; rank < board_.size(); ++rank) {
    const std::byte* right = board_.stage(rank, stage) + begin;
    reduce(reduction_.op, reduction_.dtype, to, left, right, count);
    left = to;
  }
  postscale(reduction_, to, count);
}

void SharedAllreduce::copy_out(std::size_t chunk) {
  std::memcpy(output_.data + begin_of(chunk), board_.result(first_chunk_ + chunk), bytes_of(chunk));
}

}  // namespace ronde
