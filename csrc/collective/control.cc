#include "collective/control.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <limits>
#include <numeric>
#include <thread>
#include <utility>

#include "core/error.h"
#include "core/keep.h"
#include "core/text.h"

namespace ronde {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kTag = 0;
constexpr auto kCloseTime = std::chrono::seconds(5);

}  // namespace

Control::Control(std::shared_ptr<Transport> transport, Hooks hooks)
    : transport_(std::move(transport)),
      hooks_(std::move(hooks)),
      incoming_(std::make_shared<Notice>()) {
  post();
}

Control::~Control() {
  if (closed_) return;
  keep_until_exit(transport_);
  keep_until_exit(incoming_);
  for (const auto& outgoing : outgoing_) keep_until_exit(outgoing.notice);
}

void Control::post() {
  request_ = transport_->recv(kAnyPeer, kTag,
                              {reinterpret_cast<std::byte*>(incoming_.get()), sizeof(Notice), {}});
}

void Control::send(int peer, std::shared_ptr<Notice> notice) {
  const auto* bytes = reinterpret_cast<const std::byte*>(notice.get());
  const auto request = transport_->send(peer, kTag, {bytes, sizeof(Notice)});
  outgoing_.push_back({std::move(notice), request});
}

void Control::notify_all(Kind kind, const Standing& standing) {
  std::vector<int> everybody(size());
  std::iota(everybody.begin(), everybody.end(), 0);
  notify(everybody, kind, standing);
}

void Control::notify(const std::vector<int>& peers, Kind kind, const Standing& standing) {
  if (closed_) return;
  const auto notice = std::make_shared<Notice>();
  notice->kind = kind;
  notice->rank = rank();
  notice->set = standing.set;
  notice->sequence = standing.sequence;
  const auto text = cut(standing.text, sizeof notice->text);
  notice->length = static_cast<std::uint32_t>(text.size());
  notice->call = static_cast<std::uint32_t>(std::min(standing.call, text.size()));
  notice->waited = std::chrono::duration<double>(Clock::now() - standing.since).count();
  std::memcpy(notice->text, text.data(), text.size());
  for (const int peer : peers) {
    if (peer == rank()) continue;
    try {
      send(peer, notice);
    } catch (const RankFailedError&) {
      // A dead rank needs no notices; the living ones do.
    }
  }
  collect_sent();
}

void Control::announce_waiting(const Standing& standing) {
  std::lock_guard lock(mutex_);
  notify_all(Kind::waiting, standing);
}

void Control::announce_resumed(const Standing& standing) {
  std::lock_guard lock(mutex_);
  notify_all(Kind::resumed, standing);
}

void Control::announce_failure(const Standing& standing, bool stalled) {
  std::lock_guard lock(mutex_);
  if (!failure_.empty()) return;  // said already, by this rank or to it
  fail(standing.text);
  notify_all(stalled ? Kind::stalled : Kind::failed, standing);
}

void Control::begin_end(const std::string& call) {
  const auto where = hooks_.where();
  std::lock_guard lock(mutex_);
  end_ = where.empty() ? call : call + " at " + where;
  ending_ = std::this_thread::get_id();
}

void Control::announce_leaving(int set, std::uint64_t sequence, const std::vector<int>& members) {
  std::lock_guard lock(mutex_);
  if (!ending()) return;
  left_.push_back(set);
  notify(members, Kind::leaving, {set, sequence, end_});
}

void Control::go_on() {
  std::lock_guard lock(mutex_);
  left_.push_back(0);  // where it may have announced that it waits
  for (const int set : std::exchange(left_, {}))
    notify_all(Kind::resumed, {.set = set, .sequence = 0, .text = {}});
  ending_ = std::thread::id();
}

std::optional<std::string> Control::missing(const std::vector<int>& members, int set,
                                            std::uint64_t sequence) const {
  std::lock_guard lock(mutex_);
  for (const int member : members) {
    const auto found = leaving_.find({member, set});
    if (found != leaving_.end() && found->second.sequence < sequence)
      return "rank " + std::to_string(member) + " has left: " + found->second.text;
  }
  return std::nullopt;
}

bool Control::take_notice(Notice& notice) {
  if (goodbyes_ == size()) return false;
  const auto bytes = transport_->test(request_);
  if (!bytes) return false;
  if (*bytes != sizeof(Notice)) throw Error("the control channel received an unexpected message");
  notice = *incoming_;
  if (notice.kind == Kind::goodbye) ++goodbyes_;
  if (goodbyes_ < size()) post();
  return true;
}

void Control::collect_sent() {
  outgoing_.remove_if([&](const Outgoing& outgoing) {
    try {
      return transport_->test(outgoing.request).has_value();
    } catch (const RankFailedError&) {
      return false;  // keep its memory
    }
  });
}

void Control::fail(std::string text) {
  failure_ = std::move(text);
  failed_.store(true, std::memory_order_release);
  for (const auto& each : std::exchange(under_way_, {}))
    if (const auto work = each.lock()) work->abandon();
}

void Control::abandon_on_failure(const std::shared_ptr<Work>& work) {
  std::lock_guard lock(mutex_);
  std::erase_if(under_way_, [](const auto& each) { return each.expired(); });
  under_way_.push_back(work);
  if (failed()) work->abandon();
}

void Control::poll(const Standing& mine) {
  std::lock_guard lock(mutex_);
  if (closed_) return;
  collect_sent();
  Notice notice;
  while (take_notice(notice)) handle(notice, mine);
  // Another thread of this process may have received it, or have failed itself.
  if (!failure_.empty()) throw RankFailedError(failure_ + "\nwhile this rank was in " + mine.text);
}

void Control::handle(const Notice& notice, const Standing& mine) {
  const auto text =
      printable_lines({notice.text, std::min<std::size_t>(notice.length, sizeof notice.text)});
  Standing theirs{.set = notice.set, .sequence = notice.sequence, .text = printable(text)};
  theirs.call = std::min<std::size_t>(notice.call, theirs.text.size());
  theirs.since = Clock::now() - std::chrono::duration_cast<Clock::duration>(
                                    std::chrono::duration<double>(notice.waited));
  switch (notice.kind) {
    case Kind::waiting:
      waiting_[{notice.rank, notice.set}] = std::move(theirs);
      return;
    case Kind::resumed:
      waiting_.erase({notice.rank, notice.set});
      leaving_.erase({notice.rank, notice.set});
      return;
    case Kind::leaving:
      leaving_[{notice.rank, notice.set}] = std::move(theirs);
      return;
    case Kind::failed:
      if (failure_.empty()) fail("rank " + std::to_string(notice.rank) + " gave up: " + text);
      return;
    case Kind::stalled:
      if (theirs.same_call(mine)) {
        fail(text);
        throw StalledError(text);
      }
      if (failure_.empty())
        fail("rank " + std::to_string(notice.rank) + " gave up waiting: " + text);
      return;
    case Kind::goodbye:
      return;
  }
}

bool Control::others_wait() const {
  std::lock_guard lock(mutex_);
  return !waiting_.empty();
}

std::vector<Standing> Control::waiting(int rank) const {
  std::lock_guard lock(mutex_);
  std::vector<Standing> standings;
  for (auto it = waiting_.lower_bound({rank, std::numeric_limits<int>::min()});
       it != waiting_.end() && it->first.first == rank; ++it)
    standings.push_back(it->second);
  return standings;
}

std::string Control::failure() const {
  std::lock_guard lock(mutex_);
  return failure_;
}

bool Control::close() {
  std::lock_guard lock(mutex_);
  const auto deadline = std::chrono::steady_clock::now() + kCloseTime;
  const auto late = [&] { return std::chrono::steady_clock::now() > deadline; };
  const auto notice = std::make_shared<Notice>();
  notice->kind = Kind::goodbye;
  notice->rank = rank();
  // Behind it no notice comes from that rank. To this one too: so the last receive is completed.
  for (int peer = 0; peer < size(); ++peer) send(peer, notice);
  while (goodbyes_ < size()) {
    Notice theirs;
    if (take_notice(theirs)) continue;
    if (late()) return false;
    std::this_thread::yield();
  }
  while (!outgoing_.empty()) {
    collect_sent();
    if (late()) return false;
    std::this_thread::yield();
  }
  return closed_ = true;
}

}  // namespace ronde
