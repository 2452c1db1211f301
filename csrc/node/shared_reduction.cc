#include "node/shared_reduction.h"

#include <algorithm>
#include <utility>

#include "core/round.h"
#include "kernels/kernels.h"

namespace ronde {
namespace {

// What one draws a ticket for: little enough for the inputs of all ranks to stay in cache.
constexpr std::size_t kTicketBytes = 32 << 10;

constexpr const char* kBriefly = "during the comparison of the calls (phase 0)";
constexpr const char* kDirectly = "directly in the arrays (ronde.empty)";
constexpr const char* kThroughStages = "through stages";

std::size_t chunks_of(std::size_t bytes, std::size_t chunk_bytes) {
  return (bytes + chunk_bytes - 1) / chunk_bytes;
}

}  // namespace

SharedAllreduce::SharedAllreduce(Board& board, std::uint64_t fingerprint, Pieces pieces,
                                 const Reduction& reduction, int root)
    : SharedCollective(board),
      pieces_(std::move(pieces)),
      reduction_(reduction),
      root_(root),
      receives_(root == kAllRanks || root == board.rank()),
      chunk_count_(chunks_of(pieces_.bytes(), Board::kStageBytes)),
      first_chunk_(board.chunks()),
      ins_(board.size()) {
  auto& note = board_.new_note();
  if (pieces_.bytes() <= Board::kShortBytes) {
    route_ = Route::brief;
    pieces_.for_range(0, pieces_.bytes(), [&](std::size_t offset, const Piece& piece) {
      copy_bytes(note.payload + offset, piece.input.data, piece.input.bytes);
    });
  } else {
    const Piece* whole = pieces_.whole();
    if (whole) {
      note.input = board_.directory().enter(whole->input);
      if (receives_ && note.input) note.output = board_.directory().enter(whole->output);
    }
    if (!note.input) copy_in(0);
  }
  enter(note, fingerprint);
}

const char* SharedAllreduce::route() const {
  if (route_ == Route::brief) return kBriefly;
  return route_ == Route::direct ? kDirectly : kThroughStages;
}

std::size_t SharedAllreduce::plan() {
  if (route_ == Route::brief) return 1;
  bool all = true;
  for (int rank = 0; rank < board_.size(); ++rank) {
    const auto& note = board_.note(rank);
    sources_.push_back(board_.directory().reach(rank, note.input));
    all &= sources_.back() != nullptr;
    if (root_ != kAllRanks && root_ != rank) continue;
    targets_.push_back(board_.directory().reach(rank, note.output));
    all &= targets_.back() != nullptr;
  }
  if (all) {
    route_ = Route::direct;
    // What others get is a copy of this rank's own result (reduce_many).
    const int first = root_ == kAllRanks ? board_.rank() : root_;
    if (root_ == kAllRanks) std::swap(targets_[0], targets_[first]);
    outs_.resize(targets_.size());
    // What is in place has just been read, and is in the caches.
    streaming_ = sources_[first] != targets_[0] && pieces_.bytes() * board_.size() >= kStreamBytes;
    board_.begin_tickets(chunks_of(pieces_.bytes(), kTicketBytes));
    return 2;
  }
  begin_stages(chunk_count_);
  return chunk_count_ + 1;
}

bool SharedAllreduce::round(std::size_t number) {
  if (route_ == Route::brief) {
    reduce_short();
    return true;
  }
  if (route_ == Route::direct) return number == 1 || reduce_by_ticket();
  if (number > 0) copy_out(number - 1);
  if (number + 1 < chunk_count_) copy_in(number + 1);
  if (number < chunk_count_) reduce_slice(number);
  return true;
}

void SharedAllreduce::reduce_short() {
  if (!receives_) return;
  pieces_.for_range(0, pieces_.bytes(), [&](std::size_t offset, const Piece& piece) {
    for (int rank = 0; rank < board_.size(); ++rank)
      ins_[rank] = board_.note(rank).payload + offset;
    void* out = piece.output.data;
    reduce_many(reduction_, {&out, 1}, ins_, piece.input.bytes / size_of(reduction_.dtype), false);
  });
}

/// Whether no work is left.
bool SharedAllreduce::reduce_by_ticket() {
  const std::size_t bytes = pieces_.bytes();
  for (int i = 0; i < kTicketsAtOnce; ++i) {
    const std::size_t begin = board_.draw_ticket() * kTicketBytes;
    if (begin >= bytes) return true;
    const std::size_t length = std::min(kTicketBytes, bytes - begin);
    for (std::size_t k = 0; k < ins_.size(); ++k) ins_[k] = sources_[k] + begin;
    for (std::size_t k = 0; k < outs_.size(); ++k) outs_[k] = targets_[k] + begin;
    reduce_many(reduction_, outs_, ins_, length / size_of(reduction_.dtype), streaming_);
  }
  return false;
}

SharedAllreduce::Span SharedAllreduce::chunk(std::size_t number) const {
  const std::size_t begin = number * Board::kStageBytes;
  return {begin, std::min(begin + Board::kStageBytes, pieces_.bytes())};
}

/// This rank's part of a chunk. It is cut at cache lines.
SharedAllreduce::Span SharedAllreduce::slice(const Span& chunk) const {
  const std::size_t lines = chunks_of(chunk.end - chunk.begin, kCacheLine);
  const auto cut = [&](int rank) {
    return std::min(chunk.begin + lines * rank / board_.size() * kCacheLine, chunk.end);
  };
  return {cut(board_.rank()), cut(board_.rank() + 1)};
}

/// What others reduce.
void SharedAllreduce::copy_in(std::size_t number) {
  const Span all = chunk(number), own = slice(all);
  std::byte* stage = board_.stage(board_.rank(), first_chunk_ + number) - all.begin;
  const bool streaming = board_.streams(first_chunk_ + number);
  const auto copy = [&](std::size_t offset, const Piece& piece) {
    copy_bytes(stage + offset, piece.input.data, piece.input.bytes, streaming);
  };
  pieces_.for_range(all.begin, own.begin, copy);
  pieces_.for_range(own.end, all.end, copy);
}

void SharedAllreduce::reduce_slice(std::size_t number) {
  const Span all = chunk(number), own = slice(all);
  std::byte* result = board_.result(first_chunk_ + number) - all.begin;
  const bool streaming = board_.streams(first_chunk_ + number);
  Board::Reading reading(board_, first_chunk_ + number);
  reading.add((own.end - own.begin) * (board_.size() - 1));
  pieces_.for_range(own.begin, own.end, [&](std::size_t offset, const Piece& piece) {
    for (int rank = 0; rank < board_.size(); ++rank)
      ins_[rank] = board_.stage(rank, first_chunk_ + number) - all.begin + offset;
    ins_[board_.rank()] = piece.input.data;
    void* const outs[] = {receives_ ? piece.output.data : result + offset, result + offset};
    // A root alone keeps its slice to itself.
    const std::size_t out_count = receives_ && root_ == kAllRanks ? 2 : 1;
    reduce_many(reduction_, {outs, out_count}, ins_, piece.input.bytes / size_of(reduction_.dtype),
                streaming);
  });
}

/// What others have reduced.
void SharedAllreduce::copy_out(std::size_t number) {
  if (!receives_) return;
  const Span all = chunk(number), own = slice(all);
  const std::byte* result = board_.result(first_chunk_ + number) - all.begin;
  const auto copy = [&](std::size_t offset, const Piece& piece) {
    copy_bytes(piece.output.data, result + offset, piece.output.bytes);
  };
  pieces_.for_range(all.begin, own.begin, copy);
  pieces_.for_range(own.end, all.end, copy);
}

// Reduce-scatter ----------------------------------------------------------------------------------

SharedReduceScatter::SharedReduceScatter(Board& board, std::uint64_t fingerprint, ConstBuffer input,
                                         Buffer output, const std::vector<std::size_t>& counts,
                                         const Reduction& reduction)
    : SharedCollective(board),
      input_(input),
      output_(output),
      reduction_(reduction),
      column_bytes_(Board::kStageBytes / board.size() / kCacheLine * kCacheLine),
      first_chunk_(board.chunks()),
      sources_(board.size()),
      ins_(board.size()) {
  begins_.push_back(0);
  for (const auto count : counts) {
    const std::size_t bytes = count * size_of(reduction.dtype);
    begins_.push_back(begins_.back() + bytes);
    chunk_count_ = std::max(chunk_count_, chunks_of(bytes, column_bytes_));
  }
  auto& note = board_.new_note();
  note.input = board_.directory().enter(input);
  if (!note.input && chunk_count_ > 0) copy_in(0);
  enter(note, fingerprint);
}

const char* SharedReduceScatter::route() const { return direct_ ? kDirectly : kThroughStages; }

std::size_t SharedReduceScatter::plan() {
  if (chunk_count_ == 0) return 0;
  direct_ = true;
  for (int rank = 0; rank < board_.size(); ++rank) {
    sources_[rank] = board_.directory().reach(rank, board_.note(rank).input);
    direct_ &= sources_[rank] != nullptr;
  }
  if (direct_) return 2;
  begin_stages(chunk_count_);
  return chunk_count_;
}

bool SharedReduceScatter::round(std::size_t number) {
  if (direct_) return number == 1 || reduce_directly();
  reduce_column(number);
  if (number + 1 < chunk_count_) copy_in(number + 1);
  return true;
}

/// The next piece of this rank's part; whether it was the last.
bool SharedReduceScatter::reduce_directly() {
  const std::size_t length = std::min(kDirectBytes, output_.bytes - done_);
  for (int rank = 0; rank < board_.size(); ++rank)
    ins_[rank] = sources_[rank] + begins_[board_.rank()] + done_;
  void* out = output_.data + done_;
  reduce_many(reduction_, {&out, 1}, ins_, length / size_of(reduction_.dtype), false);
  done_ += length;
  return done_ == output_.bytes;
}

/// What others reduce: for each a column.
void SharedReduceScatter::copy_in(std::size_t number) {
  std::byte* stage = board_.stage(board_.rank(), first_chunk_ + number);
  const bool streaming = board_.streams(first_chunk_ + number);
  for (int rank = 0; rank < board_.size(); ++rank) {
    const std::size_t begin = begins_[rank] + number * column_bytes_;
    if (rank == board_.rank() || begin >= begins_[rank + 1]) continue;
    copy_bytes(stage + rank * column_bytes_, input_.data + begin,
               std::min(column_bytes_, begins_[rank + 1] - begin), streaming);
  }
}

void SharedReduceScatter::reduce_column(std::size_t number) {
  const std::size_t begin = number * column_bytes_;
  if (begin >= output_.bytes) return;
  for (int rank = 0; rank < board_.size(); ++rank)
    ins_[rank] = board_.stage(rank, first_chunk_ + number) + board_.rank() * column_bytes_;
  ins_[board_.rank()] = input_.data + begins_[board_.rank()] + begin;
  void* out = output_.data + begin;
  const std::size_t length = std::min(column_bytes_, output_.bytes - begin);
  Board::Reading reading(board_, first_chunk_ + number);
  reading.add(length * (board_.size() - 1));
  reduce_many(reduction_, {&out, 1}, ins_, length / size_of(reduction_.dtype), false);
}

}  // namespace ronde
