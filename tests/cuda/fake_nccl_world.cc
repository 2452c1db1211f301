#include "fake_nccl_world.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

namespace fake_nccl {
namespace {

std::string text_of(int rank, const Call& call) {
  return "rank " + std::to_string(rank) + " in " + text_of(call);
}

}  // namespace

std::string World::join(int r, int count) {
  const std::lock_guard lock(mutex_);
  if (count != size())
    return "rank " + std::to_string(r) + " is one of " + std::to_string(count) +
           " ranks, others of " + std::to_string(size());
  if (std::exchange(rank(r).joined, true)) return "there are two of rank " + std::to_string(r);
  ++joined_;
  return {};
}

State World::state(int r) {
  const std::lock_guard lock(mutex_);
  const auto is_quiet = [](const Rank& each) {
    return each.aborted || (each.finalised && each.finished == each.issued);
  };
  return {joined_ == size(), rank(r).failed, std::ranges::all_of(ranks_, is_quiet)};
}

void World::finalise(int r, std::size_t issued) {
  const std::lock_guard lock(mutex_);
  rank(r).issued = issued;
  rank(r).finalised = true;
}

/// Called by each stream of the group when it comes to it. The last one runs it.
void World::run(int r, const std::shared_ptr<Group>& group) {
  std::unique_lock lock(mutex_);
  Rank& own = rank(r);
  if (++group->arrived < group->streams.size()) {
    changed_.wait(lock, [&] { return group->ended || own.aborted; });
    return;
  }
  const auto has_its_turn = [&] { return own.finished == group->number && !held_; };
  changed_.wait(lock, [&] { return has_its_turn() || own.aborted; });
  if (!own.aborted) {
    own.current = group;
    group->left = group->calls.size();
    for (auto& call : group->calls) begin(r, group, call);
    report_cycle(r);
    changed_.wait(lock, [&] { return group->left == 0 || own.aborted; });
    own.current = nullptr;
  }
  group->ended = true;
  ++own.finished;
  changed_.notify_all();
}

void World::begin(int r, const std::shared_ptr<Group>& group, Call& call) {
  if (rank(r).killed || rank(r).failed) return;  // it never comes
  const Waiting own{r, group, &call};
  call.moves() ? begin_move(own) : begin_collective(own);
}

void World::begin_move(const Waiting& own) {
  const bool sends = own.call->kind == Kind::send;
  const Pair pair = sends ? Pair(own.rank, own.call->peer) : Pair(own.call->peer, own.rank);
  auto& others = (sends ? receives_ : sends_)[pair];
  if (others.empty()) {
    (sends ? sends_ : receives_)[pair].push_back(own);
    return;
  }
  const Waiting other = others.front();
  others.pop_front();
  if (own.call->count != other.call->count || own.call->type != other.call->type) {
    fail({own.rank, other.rank},
         text_of(own.rank, *own.call) + ", but " + text_of(other.rank, *other.call));
    return;
  }
  const auto& [from, to] = sends ? std::pair(own, other) : std::pair(other, own);
  std::memmove(to.call->out, from.call->in, bytes_of(*from.call));
  done(own);
  done(other);
}

void World::begin_collective(const Waiting& own) {
  const auto number = own.call->round = rank(own.rank).collectives++;
  auto& round = rounds_[number];
  if (!round.empty() && !round.begin()->second.call->same(*own.call)) {
    const auto& [first, other] = *round.begin();
    const auto why = text_of(own.rank, *own.call) + ", but " + text_of(first, *other.call);
    std::vector<int> all;
    for (int r = 0; r < size(); ++r) all.push_back(r);
    fail(all, why);
    return;
  }
  round[own.rank] = own;
  if (round.size() < ranks_.size()) return;
  std::vector<const Call*> calls;
  for (const auto& [r, waiting] : round) calls.push_back(waiting.call);
  perform(calls);
  for (const auto& [r, waiting] : round) done(waiting);
  rounds_.erase(number);
}

void World::done(const Waiting& waiting) {
  waiting.call->done = true;
  --waiting.group->left;
  changed_.notify_all();
}

/// Ranks that have not come to a call.
std::vector<int> World::missing(const Call& call) const {
  if (call.done) return {};
  if (call.moves()) return {call.peer};
  std::vector<int> all;
  const auto round = rounds_.find(call.round);
  for (int r = 0; r < size(); ++r) {
    if (round == rounds_.end() || !round->second.contains(r)) all.push_back(r);
  }
  return all;
}

/// Whether `r` waits for `start`, through others perhaps, all of them in operations of their own.
bool World::find_cycle(int start, int r, std::vector<Edge>& path, std::set<int>& seen) const {
  const Rank& from = ranks_[static_cast<std::size_t>(r)];
  if (!from.current || from.killed || from.failed || !seen.insert(r).second) return false;
  for (const auto& call : from.current->calls) {
    for (const int next : missing(call)) {
      path.push_back({r, &call});
      if (next == start || find_cycle(start, next, path, seen)) return true;
      path.pop_back();
    }
  }
  return false;
}

void World::report_cycle(int r) {
  std::vector<Edge> path;
  std::set<int> seen;
  if (!find_cycle(r, r, path, seen)) return;
  std::string why = "ranks wait for each other:";
  std::vector<int> which;
  for (const auto& [each, call] : path) {
    why += (which.empty() ? " " : ", ") + text_of(each, *call);
    which.push_back(each);
  }
  fail(which, why);
}

void World::fail(const std::vector<int>& which, const std::string& why) {
  for (const int r : which) {
    if (rank(r).failed) continue;
    rank(r).error = why;
    rank(r).failed = true;
    withdraw(r);
  }
  std::fprintf(stderr, "fake NCCL: %s\n", why.c_str());
}

/// What this rank has begun is not done any more.
void World::withdraw(int r) {
  for (auto* const all : {&sends_, &receives_}) {
    for (auto& [pair, list] : *all)
      list.remove_if([&](const Waiting& waiting) { return waiting.rank == r; });
  }
  for (auto& [number, round] : rounds_) round.erase(r);
}

void World::abort(int r) {
  const std::lock_guard lock(mutex_);
  withdraw(r);
  rank(r).aborted = true;
  changed_.notify_all();
}

void World::kill(int r) {
  const std::lock_guard lock(mutex_);
  if (r >= size()) return;
  withdraw(r);
  rank(r).killed = true;
}

void World::hold(bool held) {
  const std::lock_guard lock(mutex_);
  held_ = held;
  changed_.notify_all();
}

}  // namespace fake_nccl
