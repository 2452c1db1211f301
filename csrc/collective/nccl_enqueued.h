// What a call of arrays on GPUs enqueues on the stream of its lane, for NCCL and around it.
//
//   Enqueued enqueued(lane, operation, pieces);
//   const bool connected = co_await enqueued.begin(bytes);   // phase 0, and the caller's streams
//   enqueued.nccl()->call(...);
//   co_await enqueued.nccl();
//   enqueued.end();                                          // what the caller's streams wait for
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string_view>

#include "collective/lane.h"
#include "collective/nccl_connection.h"
#include "collective/orders.h"
#include "core/pieces.h"
#include "cuda/received.h"
#include "schedule/schedule.h"

namespace ronde {

/// Whether NCCL may do it, as far as all ranks know before they agree.
bool may_use_nccl(Lane& lane, const Operation& operation, Collective collective,
                  std::string_view algorithm);

class Enqueued {
 public:
  /// It touches these.
  Enqueued(Lane& lane, Operation& operation, std::span<const Piece> pieces);
  Enqueued(const Enqueued&) = delete;
  Enqueued& operator=(const Enqueued&) = delete;

  /// Phase 0. What is enqueued then comes after what the caller's streams do before. Returns false
  /// if it cannot be done. `bytes`: of this rank's array.
  Task<bool> begin(std::size_t bytes);

  cuda::Device& device() const { return nccl_->device(); }
  cuda::StreamHandle stream() const { return nccl_->stream(); }
  const std::shared_ptr<NcclConnection>& nccl() const { return nccl_; }

  /// Memory of the GPU for what is enqueued.
  std::byte* scratch(std::size_t bytes);
  /// The same for a result that the caller has no memory for yet.
  std::shared_ptr<cuda::Received> receive(std::size_t bytes);

  void end();

 private:
  bool is_on_own_gpu() const;

  Lane& lane_;
  Operation& operation_;
  const std::shared_ptr<NcclConnection> nccl_;
  const Orders orders_;
  const bool mixed_;  // some of it is the host's
  std::shared_ptr<cuda::Received> received_;
};

}  // namespace ronde
