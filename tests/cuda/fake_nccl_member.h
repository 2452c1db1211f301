// One rank of a communicator of the fake NCCL (fake_nccl.cc), as its process sees it. The World in
// which ranks find each other is in the process that made the id.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "fake_nccl_world.h"

namespace fake_nccl {

class Member {
 public:
  Member(int rank, int size) : rank(rank), size(size) {}
  virtual ~Member() = default;
  Member(const Member&) = delete;
  Member& operator=(const Member&) = delete;

  const int rank, size;

  /// What is wrong with it; empty if nothing is.
  virtual std::string join() = 0;
  virtual State state() = 0;
  /// Why it has failed.
  virtual std::string error() = 0;
  /// Called by each stream of the group when it comes to it. Returns when it has been done, or is
  /// aborted.
  virtual void run(const std::shared_ptr<Group>& group) = 0;
  /// After so many groups.
  virtual void finalise(std::size_t issued) = 0;
  virtual void abort() = 0;
};

/// Of a World in this process.
class LocalMember final : public Member {
 public:
  LocalMember(std::shared_ptr<World> world, int rank, int size)
      : Member(rank, size), world_(std::move(world)) {}

  std::string join() override { return world_->join(rank, size); }
  State state() override { return world_->state(rank); }
  std::string error() override { return world_->error(rank); }
  void run(const std::shared_ptr<Group>& group) override { world_->run(rank, group); }
  void finalise(std::size_t issued) override { world_->finalise(rank, issued); }
  void abort() override { world_->abort(rank); }

 private:
  const std::shared_ptr<World> world_;
};

}  // namespace fake_nccl
