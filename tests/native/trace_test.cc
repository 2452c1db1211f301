// The flight record while it is written and read at once, its ring, and a timeline of several
// threads.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "collective/watch.h"
#include "core/error.h"
#include "trace/clock.h"
#include "trace/flight_reader.h"
#include "trace/flight_record.h"
#include "transport/inproc.h"

namespace {

using namespace ronde;

Entry submit(Recorder& recorder, std::string_view name) {
  return recorder.submit({"allreduce", name, 8, coarse_time()});
}

std::vector<Recorded> calls_of(const FlightReader& reader, int set, int lane) {
  for (const auto& each : reader.lanes())
    if (each.set == set && each.lane == lane) return each.calls;
  std::abort();
}

void a_call_is_seen_by_others() {
  FlightRecord record;
  record.describe(2, 4, 3, "job", "host");
  record.enter("phase");
  const auto recorder = record.open(5, 0);
  auto entry = recorder->begin("allreduce", "w", 40);
  entry.agrees(17);
  entry.moves("ring");
  entry.waits(1);
  entry.stands_at(std::string(200, 'x') + "/train.py:42");

  const FlightReader reader(record.path());
  CHECK(reader.process() == getpid() && reader.rank() == 2 && reader.size() == 4);
  CHECK(reader.local_size() == 3 && reader.job() == "job" && reader.host() == "host");
  CHECK(reader.phase() == "phase");
  auto calls = calls_of(reader, 5, 0);
  CHECK(calls.size() == 1);
  CHECK(calls[0].what == "allreduce/w" && calls[0].state == CallState::moving);
  CHECK(calls[0].sequence == 17 && calls[0].bytes == 40 && calls[0].peer == 1);
  CHECK(calls[0].route == "ring" && calls[0].ended == 0);
  CHECK(calls[0].site.size() < 100 && calls[0].site.ends_with("/train.py:42"));

  entry.end(CallState::done);
  calls = calls_of(reader, 5, 0);
  CHECK(calls[0].state == CallState::done && calls[0].ended >= calls[0].began);
}

/// A call that stays under way keeps its place, whatever comes after it.
void what_is_under_way_is_never_overwritten() {
  FlightRecord record;
  const auto recorder = record.open(0, 1);
  auto stays = submit(*recorder, "stays");
  for (int i = 0; i < 10'000; ++i) submit(*recorder, "passes").end(CallState::done);
  const FlightReader reader(record.path());
  const auto calls = calls_of(reader, 0, 1);
  CHECK(calls.size() == kAsynchronousRecords);
  CHECK(calls.front().what == "allreduce/stays" && calls.front().number == 1);
  CHECK(calls.back().number == 10'001);
  stays.end(CallState::done);
}

/// More than there is room for: the first ones are seen, and another once one of them has ended.
void too_many_calls_are_not_recorded() {
  FlightRecord record;
  const auto recorder = record.open(0, 1);
  std::vector<Entry> entries;
  for (std::size_t i = 0; i < 2 * kAsynchronousRecords; ++i) {
    entries.push_back(submit(*recorder, std::to_string(i)));
    CHECK(bool(entries.back()) == (i < kAsynchronousRecords));
  }
  const FlightReader reader(record.path());
  CHECK(calls_of(reader, 0, 1).back().number == kAsynchronousRecords);
  const auto early = coarse_time() - 1'000'000'000;
  entries[0].end(CallState::done);
  for (int i = 0; i < 100 && !entries.back(); ++i)
    entries.back() = recorder->submit({"allreduce", "late", 8, early});
  const auto late = calls_of(reader, 0, 1).back();
  CHECK(late.what == "allreduce/late" && late.submitted < calls_of(reader, 0, 1)[0].submitted);
  for (auto& entry : entries) entry.end(CallState::done);
}

/// Of a long name the end is kept, as that tells layers apart; and no character in halves.
void long_names_keep_their_ends() {
  FlightRecord record;
  const auto recorder = record.open(0, 0);
  std::string path;
  for (int i = 0; i < 100; ++i) path += "\xc3\xa4";
  recorder->begin("allreduce", path + ".weight", 8);
  const auto what = calls_of(FlightReader(record.path()), 0, 0)[0].what;
  CHECK(what.starts_with("allreduce/\xc3\xa4") && what.ends_with("\xc3\xa4.weight"));
}

/// As another job of the process has begun.
void a_record_is_retired() {
  FlightRecord record;
  record.describe(2, 4, 3, "job", "host");
  const FlightReader reader(record.path());
  CHECK(reader.size() == 4);
  record.retire();
  CHECK(reader.size() == 0);
}

/// Both texts of a record are always those of one call. (ThreadSanitizer is not asked: readers are
/// other processes.)
void records_are_whole() {
#ifndef __SANITIZE_THREAD__
  FlightRecord record;
  const auto recorder = record.open(0, 0);
  std::atomic<bool> ends = false;
  std::thread writer([&] {
    for (int i = 0; !ends; ++i) {
      const auto name = std::to_string(i);
      auto entry = recorder->begin("call", name, 8);
      entry.moves(name);
      entry.end(CallState::done);
    }
  });
  const FlightReader reader(record.path());
  for (int i = 0; i < 2000; ++i) {
    for (const auto& call : calls_of(reader, 0, 0))
      CHECK(call.route.empty() || call.what == "call/" + call.route);
  }
  ends = true;
  writer.join();
#endif
}

void counts_outlive_lanes() {
  FlightRecord record;
  for (int set = 0; set < 200; ++set) record.open(set, 0)->count(Counter::calls, 2);
  CHECK(record.total(Counter::calls) == 400);
  std::vector<std::unique_ptr<Recorder>> lanes;
  for (int set = 0; set < 200; ++set) lanes.push_back(record.open(set, 0));  // beyond the file
  for (const auto& lane : lanes) lane->count(Counter::calls);
  CHECK(record.total(Counter::calls) == 600);
  CHECK(FlightReader(record.path()).lanes().size() == kMostLanes);
}

/// It is looked at every 20 ms, and each time something has moved just before.
void a_transfer_that_moves_is_no_wait() {
  InprocWorld world(1);
  const auto control = std::make_shared<Control>(world.transport(0, 0), Hooks{});
  Lane lane(control, world.transport(0, 1), 0, {0}, Settings());
  const Call call;
  Operation operation(call);
  Watch watch(lane, operation);
  const auto& record = *control->flight_record();
  for (int i = 0; i < 10; ++i) watch.check(0.0001 * i);
  CHECK(record.total(Counter::waits) == 0 && record.total(Counter::wait_nanoseconds) == 0);
  for (const double elapsed : {0.01, 0.03, 0.05, 0.001, 0.021}) watch.check(elapsed);
  CHECK(record.total(Counter::waits) == 2);
  const auto waited = record.total(Counter::wait_nanoseconds);
  CHECK(waited > 70'999'000 && waited < 71'001'000);
}

void one_of_many_reports() {
  FlightRecord record;
  std::atomic<int> claims = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i)
    threads.emplace_back([&] { claims += FlightReader(record.path()).claim(60); });
  for (auto& thread : threads) thread.join();
  CHECK(claims == 1);
}

void what_is_no_record_is_refused() {
  // Its owner could cut it while it is read.
  const int unsealed = memfd_create(kFlightRecord, MFD_CLOEXEC);
  CHECK(ftruncate(unsealed, kFlightBytes) == 0);
  pwrite(unsealed, &kFlightLayout, sizeof kFlightLayout, 0);
  const auto imitation = "/proc/self/fd/" + std::to_string(unsealed);
  for (const std::string path : {"/proc/self/exe", "/no/such/file", imitation.c_str()}) {
    bool refused = false;
    try {
      const FlightReader reader(path);
    } catch (const UnavailableError&) {
      refused = true;
    }
    CHECK(refused);
  }
  close(unsealed);
}

void nobody_cuts_a_record() {
  FlightRecord record;
  const int file = open(record.path().c_str(), O_RDWR | O_CLOEXEC);
  CHECK(file >= 0 && ftruncate(file, 0) != 0);
  close(file);
}

void a_timeline_that_cannot_be_written_is_refused() {
  FlightRecord record;
  for (const std::string file : {"/no/such/folder/file", "/dev/full"}) {
    bool refused = false;
    try {
      record.timeline().start(file, 0, "host", 0);
    } catch (const Error&) {
      refused = true;
    }
    CHECK(refused && !record.timeline().on());
  }
}

std::string content(const char* file) {
  std::stringstream text;
  text << std::ifstream(file).rdbuf();
  return text.str();
}

/// A lane takes the memory of one that has ended, but not its track.
void tracks_are_not_shared() {
  char file[] = "/tmp/ronde-timeline-XXXXXX";
  close(mkstemp(file));
  FlightRecord record;
  record.open(7, 0);
  auto lane = record.open(1, 0);
  record.timeline().start(file, 0, "host", 0);
  const int first = lane->track();
  lane.reset();
  lane = record.open(2, 0);
  CHECK(lane->track() != first);
  record.timeline().stop();
  const auto text = content(file);
  CHECK(text.find("set 7") == text.npos);
  CHECK(text.find("set 1") != text.npos && text.find("set 2") != text.npos);
  std::remove(file);
}

void a_timeline_has_all_spans() {
  char file[] = "/tmp/ronde-timeline-XXXXXX";
  close(mkstemp(file));
  {
    FlightRecord record;
    const auto first = record.open(0, 0), second = record.open(0, 1);
    record.timeline().start(file, 3, "host \"quoted\"", 1000);
    bool refused = false;
    try {
      record.timeline().start(file, 3, "host", 0);
    } catch (const Error&) {
      refused = true;
    }
    CHECK(refused);
    std::vector<std::thread> threads;
    for (const auto* recorder : {first.get(), second.get()})
      threads.emplace_back([&, recorder] {
        for (int i = 0; i < 1000; ++i) {
          const Span outer(*recorder, "outer", {.bytes = 8, .of = "n"});
          const Span inner(*recorder, "inner");
          recorder->timeline().add_overlapping({"call", 5000, 6000});
          recorder->timeline().flush_at_times();
        }
      });
    for (auto& thread : threads) thread.join();
    record.timeline().stop();
    {
      const Span late(*first, "late");
    }
  }
  const auto all = content(file);
  const auto count = [&](const std::string& part) {
    int found = 0;
    for (std::size_t at = 0; (at = all.find(part, at)) != all.npos; ++at) ++found;
    return found;
  };
  CHECK(all.starts_with("[\n{") && all.ends_with("}\n]\n"));
  CHECK(count("\"outer n\"") == 2000 && count("\"inner\"") == 2000 && count("\"late\"") == 0);
  CHECK(count("\"ph\":\"b\",\"ts\":6.000") == 2000 && count("\"ph\":\"e\",\"ts\":7.000") == 2000);
  CHECK(count("host \\\"quoted\\\"") == 1);
  std::remove(file);
}

}  // namespace

int main() {
  a_call_is_seen_by_others();
  what_is_under_way_is_never_overwritten();
  too_many_calls_are_not_recorded();
  long_names_keep_their_ends();
  a_record_is_retired();
  records_are_whole();
  counts_outlive_lanes();
  a_transfer_that_moves_is_no_wait();
  one_of_many_reports();
  what_is_no_record_is_refused();
  nobody_cuts_a_record();
  tracks_are_not_shared();
  a_timeline_that_cannot_be_written_is_refused();
  a_timeline_has_all_spans();
}
