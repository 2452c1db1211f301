// The timeline of a rank: spans of its lanes, in the JSON of Chrome's trace viewer and Perfetto.
//
// While none is started, a span costs one relaxed load. Spans are collected in memory and written
// by whoever ends a call or waits in one, every 100 ms or so. Each write replaces the bracket that
// closes the file by more events and a new bracket, in one system call, so the file is valid JSON
// at any time, unless the process is killed in the middle of it.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>

#include "trace/recorder.h"

namespace ronde {

class Timeline {
 public:
  Timeline() = default;
  ~Timeline();
  Timeline(const Timeline&) = delete;
  Timeline& operator=(const Timeline&) = delete;

  bool on() const { return on_.load(std::memory_order_relaxed); }

  /// Begins a new file. `offset` is added to all times, in nanoseconds of CLOCK_MONOTONIC. Throws
  /// Error if the file cannot be written.
  void start(const std::string& file, int rank, const std::string& host, std::int64_t offset);
  /// Completes the file. Throws Error if something could not be written.
  void stop();

  /// A track and its name; a file begins with those that there are.
  void add_track(int track, const std::string& name);
  void remove_track(int track);

  struct Event {
    std::string_view name;
    std::int64_t begin, end;  // exact_time()
    std::size_t bytes = 0;    // 0: of no interest
    std::string_view by{};    // the algorithm or route
  };
  /// What happened on a track. Spans of a track are nested.
  void add_span(int track, const Event& event);
  /// What may overlap with others: a call from its submission to its end.
  void add_overlapping(const Event& event);

  /// Writes what has been collected, if it is time to. Called at the end of calls, and in waits.
  void flush_at_times();

 private:
  void add(const std::string& event);
  void flush();
  void write(const std::string& text);
  std::string track_event(int track, const std::string& name) const;

  std::atomic<bool> on_ = false;
  std::atomic<std::int64_t> flushed_ = 0;
  std::atomic<std::uint64_t> overlapping_ = 0;

  std::mutex writing_;  // before the other
  int process_ = 0;     // that writes
  int file_ = -1;
  std::int64_t length_ = 0;  // of the file without its closing bracket
  std::string failure_;

  std::mutex collecting_;
  std::string collected_;
  std::map<int, std::string> tracks_;
  int rank_ = 0;
  std::int64_t offset_ = 0;
};

/// From here to the end of the block, or of the task. `of`: what it is for, which
/// follows the name. `by`: the algorithm or route.
class Span {
 public:
  struct About {
    std::size_t bytes = 0;
    std::string_view of{}, by{};
  };
  explicit Span(const Recorder& recorder, std::string_view name, const About& about)
      : recorder_(recorder), bytes_(about.bytes) {
    if (recorder.timeline().on()) begin(name, about);
  }
  Span(const Recorder& recorder, std::string_view name) : Span(recorder, name, About{}) {}
  ~Span() {
    if (begin_ != 0) end();
  }
  Span(const Span&) = delete;
  Span& operator=(const Span&) = delete;

 private:
  void begin(std::string_view name, const About& about);
  void end();

  const Recorder& recorder_;
  const std::size_t bytes_;
  std::int64_t begin_ = 0;
  std::string name_, by_;
};

}  // namespace ronde
