// Rounds of asynchronous calls that are under way together, where messages come late in ways that
// decide.
#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "asynchronous.h"

namespace {

using namespace ronde;
using namespace ronde::test;
using namespace std::chrono_literals;

/// When a message with this tag may arrive, at the earliest.
using Arrival = std::function<Clock::time_point(int tag)>;

/// A transport whose messages come late.
class Late final : public Transport {
 public:
  Late(std::shared_ptr<Transport> transport, Arrival arrival)
      : transport_(std::move(transport)), arrival_(std::move(arrival)) {}
  int rank() const override { return transport_->rank(); }
  int size() const override { return transport_->size(); }
  Request send(int peer, int tag, ConstBuffer message) override {
    return transport_->send(peer, tag, message);
  }
  Request recv(int peer, int tag, Buffer capacity) override {
    const auto request = transport_->recv(peer, tag, capacity);
    arrivals_[request] = arrival_(tag);
    return request;
  }
  std::optional<std::size_t> test(Request request) override {
    const auto found = arrivals_.find(request);
    if (found != arrivals_.end() && Clock::now() < found->second) return {};
    const auto bytes = transport_->test(request);
    if (bytes) arrivals_.erase(request);
    return bytes;
  }
  std::int64_t bytes_sent() const override { return transport_->bytes_sent(); }

 private:
  const std::shared_ptr<Transport> transport_;
  const Arrival arrival_;
  std::map<Request, Clock::time_point> arrivals_;
};

/// Two ranks, with these arrivals of the messages of each.
void run_two(const std::vector<Arrival>& arrivals, Settings settings, bool shared, bool worker,
             const std::function<void(Rank&)>& program) {
  InprocWorld world(2, {});
  std::vector<std::thread> threads;
  for (const int rank : {0, 1}) {
    threads.emplace_back([&, rank] {
      Rank me{.rank = rank,
              .size = 2,
              .there = {0, 1},
              .control = std::make_shared<Control>(
                  std::make_shared<Locked>(world.transport(rank, 0)), Hooks{}),
              .set = {},
              .part = {},
              .engine = {},
              .own = {}};
      const auto late = std::make_shared<Locked>(
          std::make_shared<Late>(world.transport(rank, 1), arrivals[rank]));
      me.set =
          std::make_unique<Communicator>(me.control, late, 0, std::vector<int>{0, 1}, settings);
      if (shared) CHECK(me.set->share_memory());
      me.engine = std::make_shared<Engine>(me.control, kFusionBytes, false, worker);
      program(me);
      me.engine->stop();
      me.engine->drain(*me.set, "the test ended");
      CHECK(me.engine->close(*me.set, "the test ended"));
      barrier(*me.set, call("last"));
    });
  }
  for (auto& thread : threads) thread.join();
}

Settings settings_of(double stall_timeout) {
  Settings settings;
  settings.spin = false;
  settings.segment_bytes = 8 << 10;
  settings.stall_warning = 0;
  settings.stall_timeout = stall_timeout;
  return settings;
}

Issued submit_call(Rank& me, Kind kind, const std::string& name, std::size_t count) {
  Wish wish{.kind = kind,
            .name = name,
            .reduction = {},
            .in_place = false,
            .of_part = false,
            .count = count,
            .root = 1,
            .salt = 0};
  wish.reduction.dtype = DType::float32;
  return submit(me, wish);
}

Issued submit_sum(Rank& me, const std::string& name, std::size_t count) {
  return submit_call(me, Kind::allreduce, name, count);
}

void finish(Rank& me, const Issued& issued) {
  CHECK(me.engine->wait(*issued.submission, kDeadline));
  check(issued);
}

/// What the asynchronous lanes exchange outside of data.
std::vector<int> exchange_tags() {
  InprocWorld world(1);
  const auto control = std::make_shared<Control>(world.transport(0, 0), Hooks{});
  const Lane blocking(control, world.transport(0, 1), 0, {0}, Settings());
  std::vector<int> tags;
  for (int number = 0; number < Lane::kMostAsynchronous; ++number)
    tags.push_back(Lane(blocking, {number, nullptr}).exchange_tag());
  return tags;
}

/// Whether it is data of the first asynchronous lane.
bool is_first_data(const std::vector<int>& tags, int tag) {
  return tag > tags[0] && tag < tags[1] - 1;
}

// Where an algorithm is named, calls of one machine go by the link too. All ranks must know it
// before any of these calls begins. Here the fourth goes on the lane of the first, which ends early
// on rank 1, and on rank 0 only when others would have measured the link.
void the_link_is_measured_before_calls_begin() {
  const auto start = Clock::now();
  const auto tags = exchange_tags();
  constexpr int kOpening = 4;  // messages of a lane
  bool data_was_late = false;
  const Arrival late_data = [&](int tag) {
    if (!is_first_data(tags, tag)) return start;
    data_was_late = true;
    return start + 600ms;
  };
  int of_second = 0;
  const Arrival late_exchange = [&](int tag) {
    if (tag != tags[1] || ++of_second <= kOpening) return start;
    return start + 300ms;
  };
  auto settings = settings_of(5.0);
  settings.algorithm["allreduce"] = "ring";
  settings.algorithm["broadcast"] = "tree";
  run_two({late_data, late_exchange}, settings, true, false, [](Rank& me) {
    std::vector<Issued> all{submit_call(me, Kind::broadcast, "short", 100)};
    for (const char* name : {"one", "two", "three"}) all.push_back(submit_sum(me, name, 5000));
    for (const auto& each : all) finish(me, each);
  });
  CHECK(data_was_late && of_second > kOpening);
}

// A rank that waits for a long round comes to the next one late. Others, who wait for it there, do
// not give up while the long one moves.
void a_long_round_does_not_stall_the_next() {
  Clock::time_point arrivals[2];
  std::atomic<bool> slow = false;
  const auto tags = exchange_tags();
  const auto is_data = [&](int tag) {
    return std::none_of(tags.begin(), tags.end(),
                        [&](int one) { return tag <= one && tag >= one - 1; });
  };
  const auto arrival = [&](int rank) {
    return [&, rank](int tag) {
      if (!slow || !is_data(tag)) return Clock::time_point();
      return arrivals[rank] = std::max(arrivals[rank], Clock::now()) + 20ms;
    };
  };
  constexpr std::size_t kCount = 200'000;  // about a hundred segments
  run_two({arrival(0), arrival(1)}, settings_of(1.0), false, false, [&](Rank& me) {
    for (int step = 0; step < 2; ++step) {
      slow = step == 1;
      const auto one = submit_sum(me, "one", kCount);
      if (me.rank == 1) finish(me, one);
      const auto other = submit_sum(me, "other", 1000);
      if (me.rank == 0) finish(me, one);
      slow = false;
      finish(me, other);
    }
  });
}

// A worker that sleeps, as nothing was under way, wakes when a look at a call begins a round.
void a_round_that_a_poll_begins_goes_on() {
  const Arrival at_once = [](int) { return Clock::time_point(); };
  std::atomic<bool> done = false;
  run_two({at_once, at_once}, settings_of(20.0), false, true, [&](Rank& me) {
    const auto one = submit_sum(me, "one", 10);
    if (me.rank == 1) {
      std::this_thread::sleep_for(200ms);
      me.engine->poll(*one.submission);
      while (!done) std::this_thread::sleep_for(1ms);
    }
    finish(me, one);
    done = true;
  });
}

}  // namespace

int main() {
  the_link_is_measured_before_calls_begin();
  a_long_round_does_not_stall_the_next();
  a_round_that_a_poll_begins_goes_on();
  std::puts("rounds: ok");
}
