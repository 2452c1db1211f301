#include "collective/nccl_connection.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <vector>

#include "collective/exchange.h"
#include "collective/lane.h"
#include "core/error.h"
#include "core/packed.h"

namespace ronde {
namespace {

/// What a rank says before they connect.
struct Said {
  cuda::Uuid gpu{};
  bool shares = false;  // NCCL lets it use a GPU with others
  cuda::NcclId id;      // of the first rank's making

  template <class Archive, class Self>
  static void each_field(Archive& archive, Self& self) {
    archive(self.gpu, self.shares, self.id);
  }
};

std::string said_of(const cuda::Device& device, bool is_first) {
  const auto& nccl = cuda::Nccl::get();
  Said said{cuda::Device::uuid(device.ordinal()), nccl.shares_gpus(), {}};
  if (is_first) said.id = nccl.unique_id();
  return packed(said);
}

/// Why they cannot be connected; empty if they can.
std::string objection(const std::vector<Said>& all, const std::vector<int>& members) {
  if (std::ranges::all_of(all, &Said::shares)) return {};
  for (auto one = all.begin(); one != all.end(); ++one) {
    const auto other =
        std::find_if(one + 1, all.end(), [&](const Said& each) { return each.gpu == one->gpu; });
    if (other == all.end()) continue;
    const auto rank = [&](auto each) { return std::to_string(members[each - all.begin()]); };
    return "ranks " + rank(one) + " and " + rank(other) +
           " use the same GPU, so arrays of GPUs are copied through the memory of the host and not "
           "over NCCL: let each rank use another, that of the number ronde.local_rank() say";
  }
  return {};
}

}  // namespace

Task<bool> NcclConnection::connect(Lane& lane, Operation& operation, cuda::Device& device) {
  if (state_ != State::unknown) co_return state_ == State::connected;
  const bool everybody = ranks_ == Ranks::all;
  const auto& ranks = everybody ? lane.transport() : *lane.inside();
  if (everybody) co_await lane.begin(operation);
  std::string mine = said_of(device, ranks.rank() == 0);
  const auto exchange = everybody ? exchange_texts : exchange_texts_here;
  const auto texts = co_await exchange(lane, operation, std::move(mine));
  std::vector<Said> all;
  std::vector<int> members;
  for (int rank = 0; rank < ranks.size(); ++rank) {
    all.push_back(unpacked<Said>(texts[rank]));
    members.push_back(lane.members()[ranks.member(rank)]);
  }
  if (const auto why = objection(all, members); !why.empty()) {
    state_ = State::refused;
    if (ranks.rank() == 0 && !warned_->exchange(true)) lane.control().hooks().warn(why);
    co_return false;
  }
  device_ = &device;
  begin(all[0].id, ranks.size(), ranks.rank());
  const auto self = shared_from_this();
  co_await self;
  state_ = State::connected;
  co_return true;
}

void NcclConnection::begin(const cuda::NcclId& id, int size, int rank) {
  const std::lock_guard lock(mutex_);
  if (abandoned_) throw Error("NCCL was given up before it was connected");
  stream_.emplace(*device_);
  communicator_.emplace(*device_, id, size, rank);
}

void NcclConnection::finish(double seconds) {
  if (!stream_) return;
  const auto begun = std::chrono::steady_clock::now();
  const auto is_late = [&] {
    const std::chrono::duration<double> waited = std::chrono::steady_clock::now() - begun;
    return seconds > 0 && waited.count() > seconds;
  };
  const auto is_abandoned = [&] {
    const std::lock_guard lock(mutex_);
    return abandoned_;
  };
  try {
    cuda::Event last(*device_);
    last.record(*stream_);
    while (!last.reached() && !is_abandoned() && !is_late())
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
  } catch (const Error&) {  // the driver has ended
  }
}

Progress NcclConnection::progress() {
  const std::lock_guard lock(mutex_);
  return communicator_->ready() ? Progress::done : Progress::idle;
}

void NcclConnection::abandon() {
  const std::lock_guard lock(mutex_);
  abandoned_ = true;
  if (!communicator_) return;
  try {
    communicator_->abort();
  } catch (const std::exception&) {  // NCCL or the driver has ended, or there can be no thread
  }
}

}  // namespace ronde
