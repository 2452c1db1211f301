#include "trace/recorder.h"

#include <unistd.h>

#include <iterator>
#include <utility>

#include "trace/timeline.h"

namespace ronde {
namespace {

// So many are looked at for one that is free: calls that stay under way keep theirs.
constexpr int kTries = 8;

/// The version is odd while it lives.
class Writing {
 public:
  explicit Writing(Record& record)
      : record_(record), version_(record.version.load(std::memory_order_relaxed)) {
    record_.version.store(version_ + 1, std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_release);
  }
  ~Writing() { record_.version.store(version_ + 2, std::memory_order_release); }
  Writing(const Writing&) = delete;
  Writing& operator=(const Writing&) = delete;

 private:
  Record& record_;
  const std::uint32_t version_;
};

}  // namespace

void Entry::begin() {
  if (!record_) return;
  const Writing writing(*record_);
  record_->began = coarse_time();
  record_->state = CallState::begun;
}

void Entry::moves(std::string_view route) {
  if (!record_) return;
  const Writing writing(*record_);
  put(record_->route, route);
  record_->has_route = true;
  record_->state = CallState::moving;
}

void Entry::waits(int peer) {
  if (!record_) return;
  const Writing writing(*record_);
  record_->peer = peer;
}

void Entry::stands_at(std::string_view site) {
  if (!record_) return;
  const Writing writing(*record_);
  put(record_->site, site);
  record_->has_site = true;
}

void Entry::end(CallState state) {
  auto* const record = std::exchange(record_, nullptr);
  if (!record) return;
  const Writing writing(*record);
  record->ended = coarse_time();
  record->state = state;
}

Recorder::Recorder(std::byte* memory, int set, int lane, int track, Timeline& timeline)
    : header_(*reinterpret_cast<LaneHeader*>(memory)),
      track_(track),
      process_(getpid()),
      timeline_(timeline) {
  header_.set = set;
  header_.lane = lane;
  header_.records = static_cast<std::uint32_t>(records_of(lane));
  for (auto& record : header_) {
    const Writing writing(record);
    record.state = CallState::none;
    record.number = 0;
  }
  header_.open.store(true, std::memory_order_release);
}

Recorder::~Recorder() {
  if (getpid() != process_) return;  // in a forked child, which shares the memory
  timeline_.remove_track(track_);
  header_.open = false;
}

/// For the next call: the oldest that has ended.
Record* Recorder::next() {
  for (int i = 0; header_.records > 0 && i < kTries; ++i) {
    auto& record = header_.begin()[position_];
    position_ = (position_ + 1) % header_.records;
    if (!record.under_way()) return &record;
  }
  return nullptr;
}

Entry Recorder::enter(CallState state, const Submitted& call) {
  auto* const record = next();
  if (!record) return Entry();
  const Writing writing(*record);
  record->state = state;
  record->has_route = record->has_site = false;
  record->number = ++calls_;
  record->sequence = 0;
  record->bytes = call.bytes;
  record->submitted = call.at;
  record->began = state == CallState::begun ? record->submitted : 0;
  record->ended = 0;
  record->peer = -1;
  char* to = append(record->what, std::end(record->what), call.kind);
  to = append(to, std::end(record->what), call.name.empty() ? "#" : "/");
  append(to, std::end(record->what), call.name);
  return Entry(record);
}

}  // namespace ronde
