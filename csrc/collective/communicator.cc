#include "collective/communicator.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <limits>
#include <utility>

#include "collective/agreement.h"
#include "collective/select.h"
#include "collective/wait.h"
#include "collective/watch.h"
#include "core/error.h"
#include "core/keep.h"
#include "kernels/kernels.h"

namespace ronde {
namespace {

// Tags: phase 0 and the exchange that follows a mismatch have one each; data has one per call, so
// that calls under way at the same time do not mix.
constexpr int kAgreementTag = 0;
constexpr int kTextTag = 1;
constexpr int kFirstDataTag = 2;

constexpr std::size_t kTextBytes = 1024;  // of a description, in a mismatch
constexpr std::size_t kMaxPlans = 256;

void copy(Buffer to, ConstBuffer from) {
  if (to.data != from.data && from.bytes) std::memcpy(to.data, from.data, from.bytes);
}

void scale_by(double factor, DType dtype, Buffer data) {
  if (factor != 1.0) scale(dtype, data.data, factor, data.bytes / size_of(dtype));
}

Element element_of(DType dtype, ReduceOp op) { return {size_of(dtype), dtype, op}; }

template <class T>
Buffer buffer_of(std::vector<T>& values) {
  return {reinterpret_cast<std::byte*>(values.data()), values.size() * sizeof(T), {}};
}

Buffer buffer_of(const Bytes& bytes) { return {bytes.data(), bytes.size(), {}}; }

Buffer chunk_of(Buffer data, const Range& chunk) { return data.slice(chunk.offset, chunk.count); }

Chunks bytes_of(std::span<const std::size_t> rows, std::size_t row_bytes) {
  std::vector<std::size_t> bytes(rows.begin(), rows.end());
  for (auto& count : bytes) count *= row_bytes;
  return Chunks::of(bytes);
}

/// "ranks 0-3,6"
std::string list_ranks(const std::vector<int>& ranks) {
  std::string text = ranks.size() == 1 ? "rank " : "ranks ";
  for (std::size_t i = 0; i < ranks.size();) {
    std::size_t j = i;
    while (j + 1 < ranks.size() && ranks[j + 1] == ranks[j] + 1) ++j;
    if (i) text += ",";
    text += std::to_string(ranks[i]);
    if (j > i) text.append("-").append(std::to_string(ranks[j]));
    i = j + 1;
  }
  return text;
}

}  // namespace

Communicator::Communicator(std::shared_ptr<Control> control, std::shared_ptr<Transport> transport,
                           int set, std::vector<int> members, Settings settings)
    : control_(std::move(control)),
      transport_(std::move(transport)),
      set_(set),
      members_(std::move(members)),
      settings_(std::move(settings)) {}

Communicator::~Communicator() {
  // Requests of a failed call may still be under way, and MPI may still write where they point.
  if (!control_->failure().empty()) keep_for_ever(transport_);
}

void Communicator::drive(const std::shared_ptr<Work>& work, const Call& call, bool patient) {
  Watch watch(*control_, settings_, members_, set_, sequence_, call, patient);
  const auto give_up = [&](const std::string& reason, bool stalled) {
    keep_for_ever(work);
    auto standing = watch.standing();
    standing.text = reason.empty() ? "interrupted in " + standing.text : reason;
    control_->announce_failure(standing, stalled);
  };
  try {
    Wait wait(settings_.spin);
    while (true) {
      const auto progress = work->progress();
      if (progress == Progress::done) return;
      if (progress == Progress::moved) {
        wait.reset();
        continue;
      }
      wait.pause();
      if (wait.due()) watch.check(wait.elapsed());
    }
  } catch (const StalledError& error) {
    give_up(error.what(), true);
    throw;
  } catch (const std::runtime_error& error) {
    give_up(error.what(), false);
    throw;
  } catch (...) {
    give_up("", false);
    throw;
  }
}

void Communicator::agree(const Call& call, bool patient) {
  if (const auto failure = control_->failure(); !failure.empty())
    throw Error("Ronde cannot be used any more, because " + failure +
                "\ncall ronde.shutdown() and ronde.init() to begin anew");
  ++sequence_;
  const auto fingerprint = call.fingerprint() + sequence_;
  auto agreement = std::make_shared<Agreement>(*transport_, kAgreementTag, fingerprint);
  drive(agreement, call, patient);
  if (!agreement->agreed()) raise_mismatch(call);
}

void Communicator::begin(const Call& call) {
  if (settings_.check) {
    agree(call, false);
  } else {
    ++sequence_;
  }
}

void Communicator::raise_mismatch(const Call& call) {
  std::string mine = call.text();
  if (const auto where = control_->hooks().where(); !where.empty()) mine += " at " + where;
  const auto texts = exchange_texts(call, mine);

  std::vector<std::pair<std::string, std::vector<int>>> groups;
  for (int rank = 0; rank < size(); ++rank) {
    auto group = std::find_if(groups.begin(), groups.end(),
                              [&](const auto& g) { return g.first == texts[rank]; });
    if (group == groups.end()) group = groups.insert(groups.end(), {texts[rank], {}});
    group->second.push_back(members_[rank]);
  }
  std::string message = "the ranks made different calls";
  if (set_ != 0) message += " on process set " + std::to_string(set_);
  message += groups.size() > 1 ? ":" : ", though they look alike:";
  for (const auto& [text, ranks] : groups) message += "\n  " + list_ranks(ranks) + ": " + text;
  throw MismatchError(message);
}

std::vector<std::string> Communicator::exchange_texts(const Call& call, const std::string& mine) {
  const std::vector<std::size_t> counts(size(), kTextBytes);
  std::vector<char> all(size() * kTextBytes, '\0');
  std::memcpy(&all[rank() * kTextBytes], mine.data(), std::min(mine.size(), kTextBytes - 1));
  const Layout layout{.rank = rank(), .chunks = Chunks::of(counts), .inputs = {}};
  // Not by cost or by setting: the ranks have just found that they differ in something.
  const auto& algorithm = find_algorithm(Collective::allgather, "ring");
  auto execution = std::make_shared<Execution>(
      *transport_, std::make_shared<Schedule>(algorithm.build(layout)),
      Operands{{}, buffer_of(all)}, Element{}, kTextTag, 2, "exchange of descriptions");
  drive(execution, call);
  std::vector<std::string> texts;
  for (int rank = 0; rank < size(); ++rank) texts.emplace_back(&all[rank * kTextBytes]);
  return texts;
}

const Communicator::Plan& Communicator::plan(Collective collective, const Layout& layout,
                                             const Element& element, std::string_view named) {
  PlanKey key{collective,    element.bytes, layout.root,
              layout.chunks, layout.inputs, std::string(named)};
  if (const auto found = plans_.find(key); found != plans_.end()) return found->second;
  if (plans_.size() >= kMaxPlans) plans_.clear();
  const auto& algorithm = select(collective, layout, element.bytes, link_, settings_, named);
  const auto elements = std::max<std::size_t>(settings_.segment_bytes / element.bytes, 1);
  auto schedule = std::make_shared<Schedule>(segmented(algorithm.build(layout), elements));
  return plans_.emplace(std::move(key), Plan{&algorithm, std::move(schedule)}).first->second;
}

void Communicator::run(Collective collective, const Layout& layout, Operands operands,
                       Element element, const Call& call, std::string_view named) {
  const auto& [algorithm, schedule] = plan(collective, layout, element, named);
  const int tag = kFirstDataTag + static_cast<int>(sequence_ % (kMaxTag - kFirstDataTag));
  auto execution = std::make_shared<Execution>(
      *transport_, schedule, operands, element, tag, settings_.window,
      std::string(name_of(collective)) + " by " + std::string(algorithm->name));
  drive(execution, call);
}

void Communicator::barrier(const Call& call, bool patient) {
  std::lock_guard lock(mutex_);
  agree(call, patient);
}

void Communicator::allreduce(const Call& call, std::span<const Piece> pieces, DType dtype,
                             ReduceOp op, double prescale, double postscale,
                             std::string_view algorithm) {
  std::lock_guard lock(mutex_);
  begin(call);
  std::size_t bytes = 0;
  for (const auto& piece : pieces) bytes += piece.output.bytes;

  // One piece is reduced where its result belongs; several are packed into one vector.
  const bool packed = pieces.size() != 1;
  const Bytes pack(packed ? bytes : 0);
  const Buffer data = packed ? buffer_of(pack) : pieces[0].output;
  std::size_t offset = 0;
  for (const auto& piece : pieces) {
    copy(data.slice(offset, piece.output.bytes), piece.input);
    offset += piece.output.bytes;
  }
  scale_by(prescale, dtype, data);
  const Layout layout{
      .rank = rank(), .chunks = Chunks::even(bytes / size_of(dtype), size()), .inputs = {}};
  run(Collective::allreduce, layout, {{}, data}, element_of(dtype, op), call, algorithm);
  scale_by(postscale, dtype, data);
  offset = 0;
  for (const auto& piece : pieces) {
    if (packed) copy(piece.output, data.slice(offset, piece.output.bytes));
    offset += piece.output.bytes;
  }
}

void Communicator::reduce_scatter(const Call& call, ConstBuffer input, Buffer output,
                                  const Chunks& chunks, DType dtype, ReduceOp op, double prescale,
                                  double postscale, std::string_view algorithm) {
  std::lock_guard lock(mutex_);
  begin(call);
  const Bytes work(input.bytes);
  const Buffer data = buffer_of(work);
  copy(data, input);
  scale_by(prescale, dtype, data);
  const Layout layout{.rank = rank(), .chunks = chunks, .inputs = {}};
  run(Collective::reduce_scatter, layout, {{}, data}, element_of(dtype, op), call, algorithm);
  const auto mine = chunks[rank()];
  copy(output, data.slice(mine.offset * size_of(dtype), mine.count * size_of(dtype)));
  scale_by(postscale, dtype, output);
}

void Communicator::reduce(const Call& call, ConstBuffer input, Buffer output, DType dtype,
                          ReduceOp op, double prescale, double postscale, int root,
                          std::string_view algorithm) {
  std::lock_guard lock(mutex_);
  begin(call);
  const bool is_root = rank() == root;
  const Bytes work(is_root ? 0 : input.bytes);
  const Buffer data = is_root ? output : buffer_of(work);
  copy(data, input);
  scale_by(prescale, dtype, data);
  const Layout layout{.rank = rank(),
                      .chunks = Chunks::even(input.bytes / size_of(dtype), size()),
                      .inputs = {},
                      .root = root};
  run(Collective::reduce, layout, {{}, data}, element_of(dtype, op), call, algorithm);
  if (is_root) scale_by(postscale, dtype, output);
}

void Communicator::broadcast(const Call& call, Buffer data, int root, std::string_view algorithm) {
  std::lock_guard lock(mutex_);
  begin(call);
  const Layout layout{
      .rank = rank(), .chunks = Chunks::even(data.bytes, size()), .inputs = {}, .root = root};
  run(Collective::broadcast, layout, {{}, data}, {}, call, algorithm);
}

Gathered Communicator::allgather(const Call& call, ConstBuffer mine, std::size_t rows,
                                 std::size_t row_bytes, std::string_view algorithm) {
  std::lock_guard lock(mutex_);
  begin(call);
  return collect(call, Collective::allgather, mine, rows, row_bytes, 0, algorithm);
}

Gathered Communicator::gather(const Call& call, ConstBuffer mine, std::size_t rows,
                              std::size_t row_bytes, int root, std::string_view algorithm) {
  std::lock_guard lock(mutex_);
  begin(call);
  auto result = collect(call, Collective::gather, mine, rows, row_bytes, root, algorithm);
  if (rank() != root) result.data = Bytes();
  return result;
}

/// The common part of allgather and gather: learn how much each rank has, then move it.
Gathered Communicator::collect(const Call& call, Collective collective, ConstBuffer mine,
                               std::size_t rows, std::size_t row_bytes, int root,
                               std::string_view algorithm) {
  Gathered result{std::vector<std::size_t>(size()), {}};
  result.rows[rank()] = rows;
  const Layout ones{.rank = rank(), .chunks = Chunks::even(size(), size()), .inputs = {}};
  run(Collective::allgather, ones, {{}, buffer_of(result.rows)}, {sizeof(std::size_t)}, call, {});

  const Layout layout{
      .rank = rank(), .chunks = bytes_of(result.rows, row_bytes), .inputs = {}, .root = root};
  result.data = Bytes(layout.chunks.total());
  const Buffer data = buffer_of(result.data);
  copy(chunk_of(data, layout.chunks[rank()]), mine);
  run(collective, layout, {{}, data}, {}, call, algorithm);
  return result;
}

Communicator::Scattered Communicator::scatter(const Call& call, ConstBuffer all, const Parts& parts,
                                              int root, std::string_view algorithm) {
  std::lock_guard lock(mutex_);
  begin(call);
  // The root alone knows what comes, and tells: the rows of all ranks, the length of a row, the
  // header.
  std::vector<std::int64_t> told(size() + 2 + kHeaderWords);
  const auto lengths = told.begin() + size();
  if (rank() == root) {
    std::copy(parts.rows.begin(), parts.rows.end(), told.begin());
    lengths[0] = static_cast<std::int64_t>(parts.row_bytes);
    lengths[1] = static_cast<std::int64_t>(parts.header.size());
    std::copy(parts.header.begin(), parts.header.end(), lengths + 2);
  }
  const Layout words{
      .rank = rank(), .chunks = Chunks::even(told.size(), size()), .inputs = {}, .root = root};
  run(Collective::broadcast, words, {{}, buffer_of(told)}, {sizeof(std::int64_t)}, call, {});

  const std::vector<std::size_t> rows(told.begin(), lengths);
  const Layout layout{
      .rank = rank(), .chunks = bytes_of(rows, lengths[0]), .inputs = {}, .root = root};
  const Bytes work(layout.chunks.total());
  const Buffer data = buffer_of(work);
  if (rank() == root) copy(data, all);
  run(Collective::scatter, layout, {{}, data}, {}, call, algorithm);

  const auto mine = layout.chunks[rank()];
  Scattered result{rows[rank()], Bytes(mine.count), {lengths + 2, lengths + 2 + lengths[1]}};
  copy(buffer_of(result.data), chunk_of(data, mine));
  return result;
}

Gathered Communicator::alltoall(const Call& call, ConstBuffer all,
                                std::span<const std::size_t> rows, std::size_t row_bytes,
                                std::string_view algorithm) {
  std::lock_guard lock(mutex_);
  begin(call);
  // First the lengths: an alltoall of one number to each rank.
  std::vector<std::size_t> sent(rows.begin(), rows.end());
  Gathered result{std::vector<std::size_t>(size()), {}};
  const Chunks ones = Chunks::even(size(), size());
  run(Collective::alltoall, {.rank = rank(), .chunks = ones, .inputs = ones},
      {buffer_of(sent), buffer_of(result.rows)}, {sizeof(std::size_t)}, call, {});

  const Layout layout{.rank = rank(),
                      .chunks = bytes_of(result.rows, row_bytes),
                      .inputs = bytes_of(rows, row_bytes)};
  result.data = Bytes(layout.chunks.total());
  run(Collective::alltoall, layout, {all, buffer_of(result.data)}, {}, call, algorithm);
  return result;
}

/// The shortest of `repeats` exchanges with both neighbours of a ring, all ranks at once.
double Communicator::exchange_seconds(const Call& call, std::size_t bytes, int messages,
                                      int repeats) {
  auto schedule = std::make_shared<Schedule>();
  schedule->steps = 1;
  const int right = (rank() + 1) % size(), left = (rank() + size() - 1) % size();
  for (int i = 0; i < messages; ++i) {
    schedule->send(0, right, {Where::input, 0, bytes});
    schedule->recv(0, left, {Where::data, 0, bytes});
  }
  const std::vector<std::byte> input(bytes);
  std::vector<std::byte> data(bytes);
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < repeats; ++i) {
    const auto start = std::chrono::steady_clock::now();
    auto execution = std::make_shared<Execution>(
        *transport_, schedule, Operands{{input.data(), bytes}, buffer_of(data)}, Element{},
        kFirstDataTag, 2 * messages, "measurement of the link");
    drive(execution, call);
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    best = std::min(best, elapsed.count());
  }
  return best;
}

void Communicator::measure_link() {
  std::lock_guard lock(mutex_);
  if (size() == 1) return;
  constexpr std::size_t kSmall = 8, kLarge = 256 << 10;
  constexpr int kMessages = 8;
  Call call;
  call.kind = "measurement of the link";
  agree(call, false);
  const double alpha = exchange_seconds(call, kSmall, 1, 20);
  const double many = exchange_seconds(call, kSmall, kMessages, 10);
  const double large = exchange_seconds(call, kLarge, 1, 5);

  std::vector<float> numbers(kLarge / sizeof(float), 1.0f);
  const auto start = std::chrono::steady_clock::now();
  ronde::reduce(ReduceOp::max, DType::float32, numbers.data(), numbers.data(), numbers.data(),
                numbers.size());
  const std::chrono::duration<double> reducing = std::chrono::steady_clock::now() - start;

  std::vector<double> found = {alpha, (many - alpha) / (kMessages - 1),
                               (large - alpha) / static_cast<double>(kLarge),
                               reducing.count() / static_cast<double>(kLarge)};
  for (auto& value : found) value = std::max(value, 1e-12);
  const Layout layout{.rank = rank(), .chunks = Chunks::even(found.size(), size()), .inputs = {}};
  run(Collective::allreduce, layout, {{}, buffer_of(found)},
      element_of(DType::float64, ReduceOp::max), call, "recursive_doubling");
  set_link({.alpha = found[0], .overhead = found[1], .beta = found[2], .gamma = found[3]});
}

void Communicator::set_link(const Link& link) {
  link_ = link;
  plans_.clear();
}

void Communicator::close() {
  std::lock_guard lock(mutex_);
  transport_->close();
}

}  // namespace ronde
