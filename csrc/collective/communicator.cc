#include "collective/communicator.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <limits>
#include <new>
#include <stdexcept>
#include <thread>
#include <utility>

#include "collective/agreement.h"
#include "collective/mismatch.h"
#include "collective/select.h"
#include "collective/shared.h"
#include "collective/wait.h"
#include "collective/watch.h"
#include "core/error.h"
#include "core/keep.h"
#include "core/text.h"
#include "kernels/kernels.h"

namespace ronde {
namespace {

// Tags: phase 0 and the exchange that follows a mismatch have one each; data has one per call, so
// that calls under way at the same time do not mix.
constexpr int kAgreementTag = 0;
constexpr int kTextTag = 1;
constexpr int kFirstDataTag = 2;

constexpr std::size_t kTextBytes = 64 << 10;  // of a call in words, at most
constexpr std::size_t kMaxPlans = 256;

void copy(Buffer to, ConstBuffer from) {
  if (to.data != from.data && from.bytes) std::memcpy(to.data, from.data, from.bytes);
}

std::size_t count_of(const Reduction& reduction, const Buffer& data) {
  return data.bytes / size_of(reduction.dtype);
}

Element element_of(const Reduction& reduction) {
  return {size_of(reduction.dtype), reduction.dtype, reduction.op};
}

template <class T>
Buffer buffer_of(std::span<T> values) {
  return {reinterpret_cast<std::byte*>(values.data()), values.size_bytes(), {}};
}

Buffer chunk_of(Buffer data, const Range& chunk) { return data.slice(chunk.offset, chunk.count); }

void unpack(std::span<const Piece> pieces, Buffer data) {
  std::size_t offset = 0;
  for (const auto& piece : pieces) {
    copy(piece.output, data.slice(offset, piece.output.bytes));
    offset += piece.output.bytes;
  }
}

Chunks bytes_of(std::span<const std::size_t> rows, std::size_t row_bytes) {
  std::vector<std::size_t> bytes(rows.begin(), rows.end());
  for (auto& count : bytes) count *= row_bytes;
  return Chunks::of(bytes);
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

// What every call has around it -------------------------------------------------------------------

/// Runs `body` when this rank's turn has come, and so that whatever ends it becomes known to the
/// other ranks and leaves no memory that a late message may still touch.
template <class Body>
auto Communicator::guarded(const Call& call, Body body) {
  const auto turn = take_turn(call);
  require_usable();
  temporaries_.clear();
  try {
    return body();
  } catch (const MismatchError&) {
    throw;  // all ranks alike, and nothing is under way
  } catch (const StalledError& error) {
    give_up(call, error.what(), true);
    throw;
  } catch (const std::runtime_error& error) {
    give_up(call, error.what(), false);
    throw;
  } catch (const std::logic_error& error) {
    give_up(call, error.what(), false);
    throw;
  } catch (const std::bad_alloc&) {
    give_up(call, "out of memory", false);
    throw;
  } catch (...) {
    give_up(call, "interrupted", false);
    throw;
  }
}

/// The same, after phase 0: `body` is what a collective does once the ranks agree.
template <class Body>
auto Communicator::perform(const Call& call, Collective collective, std::string_view algorithm,
                           Body body) {
  require_algorithm(collective, size(), settings_, algorithm);
  return guarded(call, [&] {
    if (settings_.check) {
      agree(call, false);
    } else {
      ++sequence_;
    }
    return body();
  });
}

std::unique_lock<std::mutex> Communicator::take_turn(const Call& call) {
  std::unique_lock turn(mutex_, std::try_to_lock);
  for (int tries = 1; !turn.owns_lock(); ++tries) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    if (tries % 20 == 0) {
      control_->hooks().check_signals();
      control_->poll({set_, sequence_, call.text()});
    }
    (void)turn.try_lock();
  }
  return turn;
}

void Communicator::require_usable() const {
  if (const auto failure = control_->failure(); !failure.empty())
    throw Error("Ronde cannot be used any more, because " + failure +
                "\ncall ronde.shutdown() and ronde.init() to begin anew");
}

void Communicator::give_up(const Call& call, const std::string& reason, bool stalled) {
  for (auto& temporary : temporaries_) keep_for_ever(std::move(temporary));
  const Watch watch(*control_, settings_, members_, set_, sequence_, call, true);
  auto standing = watch.standing();
  // A stall names the call already.
  standing.text = stalled ? reason : reason + " in " + standing.text;
  control_->announce_failure(standing, stalled);
}

/// Moves `work` to its end. If that fails, messages may still be under way, so the work is kept.
void Communicator::drive(const std::shared_ptr<Work>& work, const Call& call, bool patient) {
  Watch watch(*control_, settings_, members_, set_, sequence_, call, patient);
  Wait wait(settings_.spin);
  try {
    while (true) {
      const auto progress = work->progress();
      if (progress == Progress::done) return;
      if (progress == Progress::moved) {
        if (wait.moved()) watch.check(0);
        continue;
      }
      wait.pause(*work);
      if (wait.due()) watch.check(wait.elapsed());
    }
  } catch (...) {
    keep_for_ever(work);
    throw;
  }
}

/// Memory for the call under way.
Bytes Communicator::allocate(std::size_t bytes) {
  Bytes memory(bytes);
  temporaries_.push_back(memory.owner());
  return memory;
}

template <class T>
std::span<T> Communicator::allocate_zeros(std::size_t count) {
  const Bytes memory = allocate(count * sizeof(T));
  std::fill_n(memory.as<T>(), count, T{});
  return {memory.as<T>(), count};
}

// Phase 0 -----------------------------------------------------------------------------------------

void Communicator::agree(const Call& call, bool patient) {
  if (board_) {
    share(call, {}, {}, {}, patient);
    return;
  }
  ++sequence_;
  const auto fingerprint = call.fingerprint() + sequence_;
  auto agreement = std::make_shared<Agreement>(*transport_, kAgreementTag, fingerprint);
  drive(agreement, call, patient);
  if (!agreement->agreed()) raise_mismatch(call);
}

/// Phase 0 through memory and, where there is something to reduce, the reduction in the same
/// breath.
void Communicator::share(const Call& call, ConstBuffer input, Buffer output,
                         const Reduction& reduction, bool patient) {
  ++sequence_;
  // With the length: what goes through memory must be equally long on all ranks, whatever the call
  // says.
  constexpr std::uint64_t kSpread = 0x9e3779b97f4a7c15;
  const auto fingerprint = call.fingerprint() + sequence_ + kSpread * input.bytes;
  auto work = std::make_shared<SharedWork>(board_, fingerprint, input, output, reduction);
  drive(work, call, patient);
  if (!work->agreed()) raise_mismatch(call);
}

bool Communicator::share_memory() {
  Call call;
  call.kind = "sharing of memory";
  return guarded(call, [&] {
    agree(call, false);
    const std::size_t bytes = Board::bytes_for(size());
    std::shared_ptr<Segment> segment;
    if (rank() == 0) {
      try {
        segment = Segment::create(bytes);
      } catch (const UnavailableError& error) {
        control_->hooks().warn(error.what());
      }
    }
    const auto address = exchange_texts(call, segment ? segment->address() : "")[0];
    if (rank() != 0 && !address.empty()) segment = Segment::open(address, bytes);

    // A path may lead to the memory of another job. Only who truly shares it sees the signatures,
    // whose word holds something of this job that no other has: an address and the time.
    const auto words = allocate_zeros<std::uint64_t>(size());
    words[rank()] = reinterpret_cast<std::uintptr_t>(control_.get()) +
                    static_cast<std::uint64_t>(Wait::Clock::now().time_since_epoch().count());
    pass_round(call, Chunks::even(words.size_bytes(), size()), buffer_of(words));
    const auto board = segment ? std::make_shared<Board>(segment, rank(), size()) : nullptr;
    if (board) board->sign(words[0]);
    agree(call, false);
    const auto seen = allocate_zeros<std::uint8_t>(size());
    seen[rank()] = board && board->all_signed(words[0]);
    pass_round(call, Chunks::even(seen.size_bytes(), size()), buffer_of(seen));
    if (std::find(seen.begin(), seen.end(), 0) == seen.end()) board_ = board;
    return board_ != nullptr;
  });
}

void Communicator::raise_mismatch(const Call& call) {
  const auto calls = exchange_texts(call, call.text());
  const auto places = exchange_texts(call, control_->hooks().where());
  std::vector<Described> described;
  for (int rank = 0; rank < size(); ++rank) described.push_back({calls[rank], places[rank]});
  throw MismatchError(mismatch_message(described, members_, set_));
}

std::vector<std::string> Communicator::exchange_texts(const Call& call, const std::string& mine) {
  const auto text = cut(mine, kTextBytes);
  const auto lengths = allocate_zeros<std::size_t>(size());
  lengths[rank()] = text.size();
  pass_round(call, Chunks::even(lengths.size_bytes(), size()), buffer_of(lengths));

  const Chunks chunks = Chunks::of(lengths);
  const Bytes all = allocate(chunks.total());
  copy(chunk_of(all.buffer(), chunks[rank()]),
       {reinterpret_cast<const std::byte*>(text.data()), text.size()});
  pass_round(call, chunks, all.buffer());

  std::vector<std::string> texts;
  for (int rank = 0; rank < size(); ++rank) {
    const auto chunk = chunk_of(all.buffer(), chunks[rank]);
    texts.emplace_back(reinterpret_cast<const char*>(chunk.data), chunk.bytes);
  }
  return texts;
}

/// An allgather by ring whatever the settings: the ranks have just found that they differ in
/// something.
void Communicator::pass_round(const Call& call, const Chunks& chunks, Buffer data) {
  const Layout layout{.rank = rank(), .chunks = chunks, .inputs = {}};
  const auto& ring = find_algorithm(Collective::allgather, "ring");
  drive(std::make_shared<Execution>(*transport_, std::make_shared<Schedule>(ring.build(layout)),
                                    Operands{{}, data}, Element{}, kTextTag, 2,
                                    "exchange of descriptions"),
        call);
}

void Communicator::barrier(const Call& call, bool patient) {
  guarded(call, [&] { agree(call, patient); });
}

// The collectives ---------------------------------------------------------------------------------

void Communicator::run(Collective collective, const Layout& layout, Operands operands,
                       Element element, const Call& call, std::string_view named) {
  const auto& [algorithm, schedule] = plan(collective, layout, element, named);
  const int tag = kFirstDataTag + static_cast<int>(sequence_ % (kMaxTag - kFirstDataTag));
  drive(std::make_shared<Execution>(
            *transport_, schedule, operands, element, tag, settings_.window,
            std::string(name_of(collective)) + " by " + std::string(algorithm->name)),
        call);
}

void Communicator::allreduce(const Call& call, std::span<const Piece> pieces,
                             const Reduction& reduction, std::string_view algorithm) {
  if (board_ && algorithm.empty() && !settings_.algorithm.contains("allreduce")) {
    guarded(call, [&] {  // phase 0 is part of it
      if (pieces.size() == 1) {
        share(call, pieces[0].input, pieces[0].output, reduction, false);
      } else {
        const Buffer data = pack(pieces);
        share(call, data, data, reduction, false);
        unpack(pieces, data);
      }
    });
    return;
  }
  perform(call, Collective::allreduce, algorithm, [&] {
    // One piece is reduced where its result belongs; several are packed into one vector.
    const bool packed = pieces.size() != 1;
    const Buffer data = packed ? pack(pieces) : pieces[0].output;
    if (!packed) copy(data, pieces[0].input);
    const std::size_t count = count_of(reduction, data);
    prescale(reduction, data.data, count);
    const Layout layout{.rank = rank(), .chunks = Chunks::even(count, size()), .inputs = {}};
    run(Collective::allreduce, layout, {{}, data}, element_of(reduction), call, algorithm);
    postscale(reduction, data.data, count);
    if (packed) unpack(pieces, data);
  });
}

/// The pieces' inputs, one after another, in memory of the call.
Buffer Communicator::pack(std::span<const Piece> pieces) {
  std::size_t bytes = 0;
  for (const auto& piece : pieces) bytes += piece.input.bytes;
  const Buffer data = allocate(bytes).buffer();
  std::size_t offset = 0;
  for (const auto& piece : pieces) {
    copy(data.slice(offset, piece.input.bytes), piece.input);
    offset += piece.input.bytes;
  }
  return data;
}

void Communicator::reduce_scatter(const Call& call, ConstBuffer input, Buffer output,
                                  const Chunks& chunks, const Reduction& reduction,
                                  std::string_view algorithm) {
  perform(call, Collective::reduce_scatter, algorithm, [&] {
    const Buffer data = allocate(input.bytes).buffer();
    copy(data, input);
    prescale(reduction, data.data, chunks.total());
    const Layout layout{.rank = rank(), .chunks = chunks, .inputs = {}};
    run(Collective::reduce_scatter, layout, {{}, data}, element_of(reduction), call, algorithm);
    const auto mine = chunks[rank()];
    const std::size_t item = size_of(reduction.dtype);
    copy(output, data.slice(mine.offset * item, mine.count * item));
    postscale(reduction, output.data, mine.count);
  });
}

void Communicator::reduce(const Call& call, ConstBuffer input, Buffer output,
                          const Reduction& reduction, int root, std::string_view algorithm) {
  perform(call, Collective::reduce, algorithm, [&] {
    const bool is_root = rank() == root;
    const Buffer data = is_root ? output : allocate(input.bytes).buffer();
    copy(data, input);
    const std::size_t count = count_of(reduction, data);
    prescale(reduction, data.data, count);
    const Layout layout{
        .rank = rank(), .chunks = Chunks::even(count, size()), .inputs = {}, .root = root};
    run(Collective::reduce, layout, {{}, data}, element_of(reduction), call, algorithm);
    if (is_root) postscale(reduction, output.data, count);
  });
}

void Communicator::broadcast(const Call& call, Buffer data, int root, std::string_view algorithm) {
  perform(call, Collective::broadcast, algorithm, [&] {
    const Layout layout{
        .rank = rank(), .chunks = Chunks::even(data.bytes, size()), .inputs = {}, .root = root};
    run(Collective::broadcast, layout, {{}, data}, {}, call, algorithm);
  });
}

Gathered Communicator::allgather(const Call& call, ConstBuffer mine, std::size_t rows,
                                 std::size_t row_bytes, std::string_view algorithm) {
  return perform(call, Collective::allgather, algorithm, [&] {
    return collect(call, Collective::allgather, mine, rows, row_bytes, 0, algorithm);
  });
}

Gathered Communicator::gather(const Call& call, ConstBuffer mine, std::size_t rows,
                              std::size_t row_bytes, int root, std::string_view algorithm) {
  auto result = perform(call, Collective::gather, algorithm, [&] {
    return collect(call, Collective::gather, mine, rows, row_bytes, root, algorithm);
  });
  if (rank() != root) result.data = Bytes();
  return result;
}

/// The common part of allgather and gather: learn how much each rank has, then move it.
Gathered Communicator::collect(const Call& call, Collective collective, ConstBuffer mine,
                               std::size_t rows, std::size_t row_bytes, int root,
                               std::string_view algorithm) {
  const auto counts = allocate_zeros<std::size_t>(size());
  counts[rank()] = rows;
  const Layout ones{.rank = rank(), .chunks = Chunks::even(size(), size()), .inputs = {}};
  run(Collective::allgather, ones, {{}, buffer_of(counts)}, {sizeof(std::size_t)}, call, {});

  const Layout layout{
      .rank = rank(), .chunks = bytes_of(counts, row_bytes), .inputs = {}, .root = root};
  const Bytes data = allocate(layout.chunks.total());
  copy(chunk_of(data.buffer(), layout.chunks[rank()]), mine);
  run(collective, layout, {{}, data.buffer()}, {}, call, algorithm);
  return {{counts.begin(), counts.end()}, data};
}

Communicator::Scattered Communicator::scatter(const Call& call, ConstBuffer all, const Parts& parts,
                                              int root, std::string_view algorithm) {
  return perform(call, Collective::scatter, algorithm, [&]() -> Scattered {
    // The root alone knows what comes, and tells: the rows of all ranks, the length of a row, the
    // header.
    const auto told = allocate_zeros<std::int64_t>(size() + 2 + kHeaderWords);
    const auto lengths = told.subspan(size(), 2);
    const auto header = told.subspan(size() + 2);
    if (rank() == root) {
      std::copy(parts.rows.begin(), parts.rows.end(), told.begin());
      lengths[0] = static_cast<std::int64_t>(parts.row_bytes);
      lengths[1] = static_cast<std::int64_t>(parts.header.size());
      std::copy(parts.header.begin(), parts.header.end(), header.begin());
    }
    const Layout words{
        .rank = rank(), .chunks = Chunks::even(told.size(), size()), .inputs = {}, .root = root};
    run(Collective::broadcast, words, {{}, buffer_of(told)}, {sizeof(std::int64_t)}, call, {});

    const std::vector<std::size_t> rows(told.begin(), told.begin() + size());
    const Layout layout{
        .rank = rank(), .chunks = bytes_of(rows, lengths[0]), .inputs = {}, .root = root};
    const Buffer data = allocate(layout.chunks.total()).buffer();
    if (rank() == root) copy(data, all);
    run(Collective::scatter, layout, {{}, data}, {}, call, algorithm);

    const auto mine = layout.chunks[rank()];
    const Bytes part(mine.count);
    copy(part.buffer(), chunk_of(data, mine));
    return {rows[rank()], part, {header.begin(), header.begin() + lengths[1]}};
  });
}

Gathered Communicator::alltoall(const Call& call, ConstBuffer all,
                                std::span<const std::size_t> rows, std::size_t row_bytes,
                                std::string_view algorithm) {
  return perform(call, Collective::alltoall, algorithm, [&]() -> Gathered {
    // First the lengths: an alltoall of one number to each rank.
    const auto sent = allocate_zeros<std::size_t>(size());
    const auto received = allocate_zeros<std::size_t>(size());
    std::copy(rows.begin(), rows.end(), sent.begin());
    const Chunks ones = Chunks::even(size(), size());
    run(Collective::alltoall, {.rank = rank(), .chunks = ones, .inputs = ones},
        {buffer_of(sent), buffer_of(received)}, {sizeof(std::size_t)}, call, {});

    const Layout layout{.rank = rank(),
                        .chunks = bytes_of(received, row_bytes),
                        .inputs = bytes_of(rows, row_bytes)};
    const Bytes data = allocate(layout.chunks.total());
    run(Collective::alltoall, layout, {all, data.buffer()}, {}, call, algorithm);
    return {{received.begin(), received.end()}, data};
  });
}

// The choice of algorithms ------------------------------------------------------------------------

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
  const auto input = allocate_zeros<std::byte>(bytes), data = allocate_zeros<std::byte>(bytes);
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < repeats; ++i) {
    const auto start = std::chrono::steady_clock::now();
    drive(std::make_shared<Execution>(*transport_, schedule,
                                      Operands{buffer_of(input), buffer_of(data)}, Element{},
                                      kFirstDataTag, 2 * messages, "measurement of the link"),
          call);
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    best = std::min(best, elapsed.count());
  }
  return best;
}

void Communicator::measure_link() {
  if (size() == 1) return;
  constexpr std::size_t kSmall = 8, kLarge = 256 << 10;
  constexpr int kMessages = 8;
  Call call;
  call.kind = "measurement of the link";
  const auto found = guarded(call, [&] {
    agree(call, false);
    const double alpha = exchange_seconds(call, kSmall, 1, 20);
    const double many = exchange_seconds(call, kSmall, kMessages, 10);
    const double large = exchange_seconds(call, kLarge, 1, 5);

    std::vector<float> numbers(kLarge / sizeof(float), 1.0f);
    const auto start = std::chrono::steady_clock::now();
    ronde::reduce(ReduceOp::max, DType::float32, numbers.data(), numbers.data(), numbers.data(),
                  numbers.size());
    const std::chrono::duration<double> reducing = std::chrono::steady_clock::now() - start;

    const auto values = allocate_zeros<double>(4);
    values[0] = alpha;
    values[1] = (many - alpha) / (kMessages - 1);
    values[2] = (large - alpha) / static_cast<double>(kLarge);
    values[3] = reducing.count() / static_cast<double>(kLarge);
    for (auto& value : values) value = std::max(value, 1e-12);
    const Layout layout{
        .rank = rank(), .chunks = Chunks::even(values.size(), size()), .inputs = {}};
    run(Collective::allreduce, layout, {{}, buffer_of(values)},
        element_of({.dtype = DType::float64, .op = ReduceOp::max}), call, "recursive_doubling");
    return Link{.alpha = values[0], .overhead = values[1], .beta = values[2], .gamma = values[3]};
  });
  set_link(found);
}

void Communicator::set_link(const Link& link) {
  std::lock_guard turn(mutex_);
  link_ = link;
  plans_.clear();
}

}  // namespace ronde
