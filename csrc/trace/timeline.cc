#include "trace/timeline.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "core/error.h"
#include "core/text.h"
#include "trace/clock.h"

namespace ronde {
namespace {

constexpr std::int64_t kFlushEvery = 100'000'000;  // ns
constexpr std::size_t kCollected = 1 << 20;        // bytes, at most
constexpr std::string_view kClosing = "\n]\n";

/// One event, field by field.
class Json {
 public:
  Json& field(const char* name, std::string_view text) {
    begin(name) += '"';
    for (const char c : printable(text)) {
      if (c == '"' || c == '\\') text_ += '\\';
      text_ += c;
    }
    text_ += '"';
    return *this;
  }
  Json& field(const char* name, std::int64_t number) {
    begin(name) += std::to_string(number);
    return *this;
  }
  /// In microseconds.
  Json& time(const char* name, std::int64_t nanoseconds) {
    char text[40];
    std::snprintf(text, sizeof text, "%lld.%03lld", static_cast<long long>(nanoseconds / 1000),
                  static_cast<long long>(nanoseconds % 1000));
    begin(name) += text;
    return *this;
  }
  Json& object(const char* name, const Json& object) {
    begin(name) += object.text();
    return *this;
  }
  bool empty() const { return text_.size() == 1; }
  std::string text() const { return text_ + "}"; }

 private:
  std::string& begin(const char* name) {
    text_ += empty() ? "\"" : ",\"";
    text_ += name;
    return text_ += "\":";
  }

  std::string text_ = "{";
};

Json arguments(const Timeline::Event& event) {
  Json arguments;
  if (event.bytes) arguments.field("bytes", static_cast<std::int64_t>(event.bytes));
  if (!event.by.empty()) arguments.field("by", event.by);
  return arguments;
}

}  // namespace

Timeline::~Timeline() {
  if (getpid() != process_) return;  // none was started, or in a child that was forked
  try {
    stop();
  } catch (const Error&) {
    // Nobody is left to be told.
  }
}

void Timeline::start(const std::string& file, int rank, const std::string& host,
                     std::int64_t offset) {
  const std::lock_guard writing(writing_);
  if (file_ >= 0) throw Error("a timeline is under way: stop it before another is started");
  file_ = ::open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (file_ < 0) throw Error("the timeline " + file + " cannot be written: " + strerror(errno));
  const std::lock_guard collecting(collecting_);
  process_ = getpid();
  rank_ = rank;
  offset_ = offset;
  failure_.clear();
  length_ = 0;
  collected_ = "[\n";
  collected_ +=
      Json()
          .field("name", "process_name")
          .field("ph", "M")
          .field("pid", rank)
          .object("args", Json().field("name", "rank " + std::to_string(rank) + " (" + host + ")"))
          .text();
  collected_ += ",\n";
  collected_ += Json()
                    .field("name", "process_sort_index")
                    .field("ph", "M")
                    .field("pid", rank)
                    .object("args", Json().field("sort_index", rank))
                    .text();
  for (const auto& [track, name] : tracks_) {
    collected_ += ",\n";
    collected_ += track_event(track, name);
  }
  write(std::exchange(collected_, {}));
  if (!failure_.empty()) {
    close(std::exchange(file_, -1));
    throw Error("the timeline " + file + " cannot be written: " + failure_);
  }
  on_ = true;
}

void Timeline::stop() {
  const std::lock_guard writing(writing_);
  if (file_ < 0) return;
  on_ = false;
  flush();
  close(std::exchange(file_, -1));
  if (!failure_.empty()) throw Error("the timeline is not complete: " + failure_);
}

void Timeline::add_track(int track, const std::string& name) {
  std::string event;
  {
    const std::lock_guard collecting(collecting_);
    tracks_[track] = name;
    event = track_event(track, name);
  }
  if (on()) add(event);
}

void Timeline::remove_track(int track) {
  const std::lock_guard collecting(collecting_);
  tracks_.erase(track);
}

std::string Timeline::track_event(int track, const std::string& name) const {
  return Json()
      .field("name", "thread_name")
      .field("ph", "M")
      .field("pid", rank_)
      .field("tid", track)
      .object("args", Json().field("name", name))
      .text();
}

void Timeline::add_span(int track, const Event& event) {
  Json span;
  span.field("name", event.name).field("ph", "X").field("pid", rank_).field("tid", track);
  span.time("ts", event.begin + offset_).time("dur", event.end - event.begin);
  if (const auto more = arguments(event); !more.empty()) span.object("args", more);
  add(span.text());
}

void Timeline::add_overlapping(const Event& event) {
  const auto id = std::to_string(rank_) + "." + std::to_string(++overlapping_);
  Json begin;
  begin.field("name", event.name).field("cat", "call").field("pid", rank_).field("id", id);
  Json end = begin;
  begin.field("ph", "b").time("ts", event.begin + offset_);
  if (const auto more = arguments(event); !more.empty()) begin.object("args", more);
  end.field("ph", "e").time("ts", event.end + offset_);
  add(begin.text());
  add(end.text());
}

void Timeline::add(const std::string& event) {
  bool full = false;
  {
    const std::lock_guard collecting(collecting_);
    collected_ += ",\n";
    collected_ += event;
    full = collected_.size() > kCollected;
  }
  if (!full) return;
  const std::lock_guard writing(writing_);
  flush();
}

void Timeline::flush_at_times() {
  if (!on() || exact_time() - flushed_ < kFlushEvery) return;
  const std::unique_lock writing(writing_, std::try_to_lock);
  if (writing.owns_lock()) flush();  // else another thread does
}

void Timeline::flush() {
  std::string text;
  {
    const std::lock_guard collecting(collecting_);
    text.swap(collected_);
  }
  flushed_ = exact_time();
  if (!text.empty() && file_ >= 0) write(text);
}

/// After a failure no more is written: the file ends with what was complete. (And a child that was
/// forked writes nothing.)
void Timeline::write(const std::string& text) {
  if (!failure_.empty() || getpid() != process_) return;
  const auto all = text + std::string(kClosing);
  const auto written = pwrite(file_, all.data(), all.size(), length_);
  if (written == static_cast<ssize_t>(all.size())) {
    length_ += static_cast<std::int64_t>(text.size());
    return;
  }
  failure_ = written < 0 ? strerror(errno) : "the disk is full";
  if (length_ == 0 || ftruncate(file_, length_) != 0 ||
      pwrite(file_, kClosing.data(), kClosing.size(), length_) < 0)
    failure_ += ", and its end is missing";
}

void Span::begin(std::string_view name, const About& about) {
  begin_ = exact_time();
  name_ = name;
  if (!about.of.empty()) name_.append(" ").append(about.of);
  by_ = about.by;
}

void Span::end() {
  auto& timeline = recorder_.timeline();
  if (timeline.on())
    timeline.add_span(recorder_.track(), {name_, begin_, exact_time(), bytes_, by_});
}

}  // namespace ronde
