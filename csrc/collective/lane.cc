#include "collective/lane.h"

#include <utility>

#include "collective/exchange.h"
#include "collective/nccl_connection.h"
#include "core/keep.h"
#include "node/shared_round.h"
#include "trace/clock.h"
#include "trace/timeline.h"
#include "transport/group.h"

namespace ronde {
namespace {

constexpr std::size_t kMostExplained = 256;  // kinds of calls

/// The spans of a shared collective: until all ranks have come, and what follows.
class SharedSpans {
 public:
  SharedSpans(const Recorder& recorder, SharedCollective& collective)
      : recorder_(recorder), collective_(collective) {
    if (!recorder.timeline().on()) return;
    collective.time_phases();
    begin_ = exact_time();
  }
  ~SharedSpans() {
    if (begin_ == 0 || !recorder_.timeline().on()) return;
    const auto end = exact_time(), agreed = collective_.agreed_at();
    const auto between = agreed == 0 ? end : agreed;
    recorder_.timeline().add_span(recorder_.track(), {"agree", begin_, between, 0, {}});
    const std::string_view route = collective_.route();
    if (agreed == 0 || route.empty()) return;
    recorder_.timeline().add_span(recorder_.track(), {"in machine", agreed, end, 0, route});
  }
  SharedSpans(const SharedSpans&) = delete;
  SharedSpans& operator=(const SharedSpans&) = delete;

 private:
  const Recorder& recorder_;
  SharedCollective& collective_;
  std::int64_t begin_ = 0;
};

}  // namespace

Lane::Lane(std::shared_ptr<Control> control, std::shared_ptr<Transport> transport, int set,
           std::vector<int> members, Settings settings)
    : Lane(control, transport, set, members, settings, 0, std::make_shared<Plans>(settings)) {}

Lane::Lane(const Lane& blocking, Asynchronous one)
    : Lane(blocking.control_, blocking.transport_, blocking.set_, blocking.members_,
           blocking.settings_, (1 + one.number) * kTags, std::move(one.plans)) {
  own_gpu_ = blocking.own_gpu_;
  if (blocking.nccl_) use_nccl(blocking.nccl_->another());
  if (blocking.nccl_inside_) use_nccl_inside(blocking.nccl_inside_->another());
}

Lane::~Lane() { end_nccl(); }

Lane::Lane(const std::shared_ptr<Control>& control, const std::shared_ptr<Transport>& transport,
           int set, const std::vector<int>& members, const Settings& settings, int first_tag,
           std::shared_ptr<Plans> plans)
    : control_(control),
      recorder_(control->flight_record()->open(set, first_tag / kTags)),
      transport_(transport),
      set_(set),
      first_tag_(first_tag),
      members_(members),
      settings_(settings),
      plans_(std::move(plans)),
      explains_(control_->hooks().log != nullptr) {}

void Lane::share(std::shared_ptr<Board> board, Neighbours neighbours) {
  board_ = std::move(board);
  neighbours_ = std::move(neighbours);
  if (neighbours_.same_local_rank.size() == 1) return;
  across_ = std::make_shared<Group>(transport_, neighbours_.same_local_rank);
  inside_ = std::make_shared<Group>(transport_, neighbours_.here);
}

cuda::StreamHandle Lane::stream_on(cuda::Device& gpu) {
  return streams_.try_emplace(gpu.ordinal(), gpu).first->second;
}

void Lane::use_nccl() { use_nccl(std::make_shared<NcclConnection>(NcclConnection::Ranks::all)); }

void Lane::use_nccl_inside() {
  use_nccl_inside(std::make_shared<NcclConnection>(NcclConnection::Ranks::of_machine));
}

void Lane::use_nccl(std::shared_ptr<NcclConnection> connection) {
  nccl_ = std::move(connection);
  uses_nccl_ = true;
  control_->abandon_on_failure(nccl_);
}

void Lane::use_nccl_inside(std::shared_ptr<NcclConnection> connection) {
  nccl_inside_ = std::move(connection);
  control_->abandon_on_failure(nccl_inside_);
}

void Lane::abandon_nccl() const {
  if (nccl_) nccl_->abandon();
  if (nccl_inside_) nccl_inside_->abandon();
}

void Lane::end_nccl() {
  for (auto* connection : {&nccl_, &nccl_inside_}) {
    if (*connection) (*connection)->finish(settings_.stall_timeout);
    connection->reset();
  }
}

void Lane::keep_until_exit() const {
  ronde::keep_until_exit(transport_);
  ronde::keep_until_exit(across_);
  ronde::keep_until_exit(inside_);
}

std::uint64_t Lane::fingerprint(const Operation& operation, std::uint64_t extent) const {
  constexpr std::uint64_t kSpread = 0x9e3779b97f4a7c15;
  return operation.call.fingerprint() + operation.sequence + kSpread * extent;
}

Task<> Lane::agree(Operation& operation) {
  if (operation.agreed) return begin_unchecked(operation);
  if (across_) return agree_across(operation);
  next(operation);
  const auto mine = fingerprint(operation);
  if (board_) return run_in_memory(operation, shared<SharedAgreement>(mine));
  return agree_by_messages(operation, Extremes::of(mine));
}

Task<> Lane::agree_across(Operation& operation) {
  next(operation);
  const auto agreement = shared<SharedAgreement>(fingerprint(operation));
  const Extremes said = co_await agree_in_memory(operation, agreement);
  co_await agree_by_messages(operation, said);
}

Task<> Lane::begin(Operation& operation) {
  return settings_.check ? agree(operation) : begin_unchecked(operation);
}

Task<> Lane::begin_unchecked(Operation& operation) {
  next(operation);
  co_return;
}

Task<> Lane::agree_by_messages(Operation& operation, Extremes said,
                               std::shared_ptr<Piggyback> piggyback) {
  if (outward().size() == 1 || (operation.agreed && !piggyback)) co_return;
  const auto agreement =
      std::make_shared<Agreement>(outward(), agreement_tag(), said, std::move(piggyback));
  const Span span(*recorder_, "agree");
  co_await agreement;
  if (!agreement->agreed()) co_await raise_mismatch(*this, operation);
}

Task<> Lane::agree_on_least(Operation& operation, std::span<std::uint64_t> words, Pieces pieces,
                            Reduction reduction) {
  next(operation);
  const auto mine = fingerprint(operation);
  auto said = Extremes::of(mine);
  if (board_) {
    const auto round = shared<SharedRound>(mine, words, std::move(pieces), reduction);
    if (!across_) {
      co_await run_in_memory(operation, round);
      co_return;
    }
    said = co_await agree_in_memory(operation, round);
  }
  co_await agree_by_messages(operation, said, std::make_shared<Least>(words));
}

Task<Extremes> Lane::agree_in_memory(Operation& operation, std::shared_ptr<SharedWork> work) {
  const SharedSpans spans(*recorder_, work->collective());
  co_await work;
  if (explains_ && work->said().equal()) explain_memory(operation, work->route());
  co_return work->said();
}

Task<> Lane::run_in_memory(Operation& operation, std::shared_ptr<SharedWork> work) {
  const SharedSpans spans(*recorder_, work->collective());
  co_await work;
  if (!work->said().equal()) co_await raise_mismatch(*this, operation);
  if (explains_) explain_memory(operation, work->route());
}

void Lane::explain(const Operation& operation, const std::string& how) {
  // Names differ, and what is compared besides is long.
  Call kind = operation.call;
  kind.name.clear();
  kind.detail.clear();
  auto line = kind.text() + ": " + how;
  if (explained_.size() >= kMostExplained) explained_.clear();
  if (explained_.insert(line).second) control_->hooks().log(line);
}

void Lane::explain_memory(const Operation& operation, const std::string& route) {
  const auto ranks = std::to_string(board_->size());
  const auto here = across_ ? "in the memory of each machine first, among its " + ranks + " ranks"
                            : "in shared memory, as all " + ranks + " ranks are on one machine";
  explain(operation, here + (route.empty() ? "" : ", ") + route);
}

}  // namespace ronde
