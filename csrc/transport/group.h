// Some ranks of a transport, as a transport of their own.
#pragma once

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "transport/transport.h"

namespace ronde {

class Group final : public Transport {
 public:
  /// `members`: ranks of `whole`, this one among them.
  Group(std::shared_ptr<Transport> whole, std::vector<int> members)
      : whole_(std::move(whole)),
        members_(std::move(members)),
        rank_(static_cast<int>(std::find(members_.begin(), members_.end(), whole_->rank()) -
                               members_.begin())) {}

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(members_.size()); }
  int member(int rank) const override { return members_[rank]; }

  Request send(int peer, int tag, ConstBuffer message) override {
    return whole_->send(members_[peer], tag, message);
  }
  Request recv(int peer, int tag, Buffer capacity) override {
    return whole_->recv(members_[peer], tag, capacity);
  }
  std::optional<std::size_t> test(Request request) override { return whole_->test(request); }
  /// Of the whole, which does the sending.
  std::int64_t bytes_sent() const override { return whole_->bytes_sent(); }

 private:
  const std::shared_ptr<Transport> whole_;
  const std::vector<int> members_;
  const int rank_;
};

}  // namespace ronde
