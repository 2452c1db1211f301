#include "transport/inproc.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <list>
#include <mutex>
#include <vector>

#include "core/error.h"
#include "transport/slots.h"

namespace ronde {
namespace {

/// SplitMix64: a good 64-bit mixing of its argument.
std::uint64_t mix(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

/// True with this probability, decided by the key alone.
bool happens(double probability, std::uint64_t key) {
  return static_cast<double>(mix(key) >> 11) * 0x1p-53 < probability;
}

/// A send that has not been received yet. The sender's memory is read when the receiver takes it.
struct Message {
  int source;
  int channel;
  int tag;
  ConstBuffer content;
  int polls_left;  // before it "arrives"
  std::shared_ptr<std::atomic<bool>> taken;
};

}  // namespace

/// Each rank has a mailbox: sends put messages there, the owner's tests take them out.
struct InprocWorld::State {
  struct Mailbox {
    std::mutex mutex;
    std::list<Message> messages;  // in the order of the sends
  };

  State(int size, Faults faults) : faults(faults), mailboxes(size), sent(size), dead(size) {}

  const Faults faults;
  std::vector<Mailbox> mailboxes;
  std::vector<std::atomic<std::int64_t>> sent;  // messages of each rank
  std::vector<std::atomic<bool>> dead;
};

namespace {

class InprocTransport final : public Transport {
 public:
  InprocTransport(std::shared_ptr<InprocWorld::State> state, int rank, int channel)
      : state_(std::move(state)), rank_(rank), channel_(channel) {}

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(state_->mailboxes.size()); }

  Request send(int peer, int tag, ConstBuffer message) override {
    const auto& faults = state_->faults;
    const std::int64_t number = state_->sent[rank_].fetch_add(1);
    if (rank_ == faults.dies && number >= faults.dies_after) state_->dead[rank_] = true;
    require_alive(rank_);
    sent_ += static_cast<std::int64_t>(message.bytes);
    const auto key = mix(faults.seed) ^ mix(rank_ + 1) ^ static_cast<std::uint64_t>(number);
    if (message.bytes && happens(faults.truncate, mix(key) + 1)) --message.bytes;
    const int polls = happens(faults.delay, key) ? static_cast<int>(mix(key + 2) % 60) : 0;

    const auto slot = pending_.take();
    auto& pending = pending_[slot];
    pending = {true, peer, tag, {}, message.bytes, std::make_shared<std::atomic<bool>>(false)};
    auto& mailbox = state_->mailboxes[peer];
    std::lock_guard lock(mailbox.mutex);
    mailbox.messages.push_back({rank_, channel_, tag, message, polls, pending.taken});
    return slot;
  }

  Request recv(int peer, int tag, Buffer capacity) override {
    require_alive(rank_);
    const auto slot = pending_.take();
    pending_[slot] = {false, peer, tag, capacity, 0, nullptr};
    posted_.push_back(slot);
    return slot;
  }

  std::optional<std::size_t> test(Request request) override {
    require_alive(rank_);
    deliver();
    const auto& pending = pending_[request];
    if (!pending.taken || !*pending.taken) {
      if (pending.peer != kAnyPeer) require_alive(pending.peer);
      return std::nullopt;
    }
    const std::size_t bytes = pending.bytes;
    pending_.give_back(request);
    return bytes;
  }

  std::int64_t bytes_sent() const override { return sent_; }

 private:
  struct Pending {
    bool is_send;
    int peer;
    int tag;
    Buffer capacity;
    std::size_t bytes;
    std::shared_ptr<std::atomic<bool>> taken;
  };

  void require_alive(int rank) const {
    if (state_->dead[rank]) throw RankFailedError("rank " + std::to_string(rank) + " is dead");
  }

  /// Gives messages to the receives that were posted first. A message that is still on its way
  /// holds back those behind it from the same rank with the same tag, and no others.
  void deliver() {
    auto& mailbox = state_->mailboxes[rank_];
    std::lock_guard lock(mailbox.mutex);
    std::vector<std::pair<int, int>> held;
    for (auto message = mailbox.messages.begin(); message != mailbox.messages.end();) {
      const auto here = message++;
      if (here->channel != channel_) continue;
      const std::pair lane{here->source, here->tag};
      if (std::find(held.begin(), held.end(), lane) != held.end()) continue;
      const auto match = std::find_if(posted_.begin(), posted_.end(), [&](Request request) {
        const auto& pending = pending_[request];
        return pending.tag == here->tag &&
               (pending.peer == kAnyPeer || pending.peer == here->source);
      });
      if (here->polls_left > 0) --here->polls_left;
      if (here->polls_left > 0 || match == posted_.end()) {
        held.push_back(lane);
        continue;
      }
      accept(*here, pending_[*match]);
      posted_.erase(match);
      mailbox.messages.erase(here);
    }
  }

  void accept(const Message& message, Pending& pending) {
    if (message.content.bytes > pending.capacity.bytes)
      throw Error("a message of " + std::to_string(message.content.bytes) +
                  " bytes was sent to a receive of " + std::to_string(pending.capacity.bytes));
    if (message.content.bytes)
      std::memcpy(pending.capacity.data, message.content.data, message.content.bytes);
    pending.bytes = message.content.bytes;
    pending.taken = message.taken;
    *message.taken = true;
  }

  const std::shared_ptr<InprocWorld::State> state_;
  const int rank_;
  const int channel_;
  Slots<Pending> pending_;
  std::list<Request> posted_;
  std::int64_t sent_ = 0;  // bytes
};

}  // namespace

InprocWorld::InprocWorld(int size, Faults faults) : state_(std::make_shared<State>(size, faults)) {}

InprocWorld::~InprocWorld() = default;

int InprocWorld::size() const { return static_cast<int>(state_->mailboxes.size()); }

std::shared_ptr<Transport> InprocWorld::transport(int rank, int channel) {
  return std::make_shared<InprocTransport>(state_, rank, channel);
}

}  // namespace ronde
