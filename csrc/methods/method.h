// How arrays of a group are reduced in fewer bytes: what all methods have in common. Each has a
// file of its own.
//
// Nouns:
//   parameter  what is known of an array of a group from call to call
//   bucket     arrays of float32 that travel together, at most fusion_bytes of them
//   method     a way to reduce buckets, and what it keeps for later calls (residuals, say)
//   codec      a method that takes a residual of whoever keeps one (error_feedback.h)
//
// The ranks have agreed on the whole call before a method runs, so no step of it has a phase 0 of
// its own. What a method does must therefore follow from what all ranks share: the parameters, the
// call, and what position() tells.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "collective/communicator.h"
#include "collective/memory.h"
#include "collective/operation.h"
#include "collective/routes.h"
#include "core/error.h"
#include "core/pieces.h"
#include "core/reduction.h"
#include "cuda/order.h"
#include "methods/vector.h"

namespace ronde {

struct Parameter {
  std::string name;  // empty where the call has none
  std::vector<std::int64_t> shape;
  DType dtype = DType::float32;
  std::size_t elements = 0;

  std::size_t bytes() const { return elements * size_of(dtype); }
};

/// Of a bucket.
using Parameters = std::vector<const Parameter*>;

struct Array {
  const Parameter* parameter;
  std::span<const float> input;
  std::span<float> output;  // may be the same memory
};

struct Bucket {
  std::vector<Array> arrays;
  Reduction reduction;    // of float32: a sum
  bool averages = false;  // over the ranks, of which there may be one
  Device device = {};  // which holds all arrays; if it is a GPU, its order is that of Ranks::queue

  const std::string& name() const { return arrays.front().parameter->name; }
  std::size_t elements() const;
  std::vector<Piece> pieces() const;
  /// The parts of a vector, which may be empty, that belong to the arrays.
  std::vector<std::span<float>> split(std::span<float> vector) const;
  /// What a sum of contributions becomes.
  double factor() const { return reduction.postscale / reduction.divisor; }
};

/// The ranks that reduce, and the call in which they do.
class Ranks {
 public:
  Ranks(Communicator& of, Routes& through, Operation& call)
      : set(of), routes(through), operation(call) {}

  Communicator& set;
  Routes& routes;
  Operation& operation;

  Lane& lane() const { return routes.lane(); }
  int rank() const { return set.rank(); }
  int size() const { return set.size(); }
  /// Nothing crosses machines.
  bool on_one_machine() const { return set.local_size() == set.size(); }

  /// Where this call enqueues what it does on a GPU by itself.
  cuda::Queue queue(const Device& gpu);
  /// A kept vector, where that is.
  std::span<float> values_of(Vector& vector, const Device& where);

  /// What is queued on a GPU, for others to reduce when the queue has come so far.
  std::vector<Piece> lend(std::vector<Piece> pieces);
  /// What is queued from now on comes after all that they have done with these.
  void take_back(std::span<const Piece> lent);

  /// Exactly, as one vector.
  Task<> allreduce(std::vector<Piece> pieces, Reduction reduction);
  Task<> allreduce(const Bucket& bucket);

  /// The same in place, of arrays that belong to the operation.
  template <class T>
  Task<> combine(const std::vector<std::span<T>>& arrays, const Device& where, DType dtype,
                 ReduceOp op) {
    std::vector<Piece> pieces;
    for (const auto& array : arrays) {
      Buffer buffer = buffer_of(array);
      buffer.device = where;
      pieces.push_back({buffer, buffer});
    }
    return allreduce_lent(std::move(pieces), {.dtype = dtype, .op = op});
  }

  template <class T>
  std::span<T> room(std::size_t count) {
    return {operation.allocate(count * sizeof(T)).template as<T>(), count};
  }
  /// The same on the host or on a GPU, for what is queued.
  template <class T>
  std::span<T> room(const Device& where, std::size_t count) {
    if (!where.is_gpu()) return room<T>(count);
    return {reinterpret_cast<T*>(room_on(where, count * sizeof(T))), count};
  }
  std::span<float> zeros(const Device& where, std::size_t count);

 private:
  std::byte* room_on(const Device& gpu, std::size_t bytes);
  Task<> allreduce_lent(std::vector<Piece> pieces, Reduction reduction);
};

/// The same bucket with its factor before applied, and something added to each input, or nothing
/// where that is empty.
Bucket scaled(Ranks& ranks, const Bucket& bucket, std::span<const std::vector<float>> added = {});

/// The same with the residuals of the arrays, each of which may be empty, added to the inputs:
/// nothing is left of them.
Bucket with_residuals(Ranks& ranks, const Bucket& bucket,
                      std::span<const std::span<float>> residuals);

/// What all ranks end a call with, after which they go on.
struct Refused : Error {
  explicit Refused(std::exception_ptr what)
      : Error("the ranks have refused a call"), error(std::move(what)) {}
  std::exception_ptr error;
};

class Method {
 public:
  Method() = default;
  virtual ~Method() = default;
  Method(const Method&) = delete;
  Method& operator=(const Method&) = delete;

  /// What a call keeps until it has ended.
  using Held = std::vector<std::shared_ptr<const void>>;

  /// A call with these buckets is to be made. Throws ArgumentError where they cannot be reduced,
  /// before anything is sent.
  virtual Held enter(const Communicator& /*set*/, std::span<const Parameters> /*buckets*/) {
    return {};
  }

  /// Whether the call leaves something behind for later ones: it must not see a step that is
  /// skipped.
  virtual bool feeds_back(const Communicator& set, std::span<const Parameters> buckets) const = 0;

  /// What must be the same on all ranks besides the call, in words; it may change from call to
  /// call, but not by calls with other buckets, which ranks may make in another order.
  virtual std::string position(const Communicator& /*set*/,
                               std::span<const Parameters> /*buckets*/) const {
    return {};
  }

  /// Whether it takes buckets of a GPU, all of whose arrays are on one. Of the host it takes all.
  virtual bool takes_gpus(const Ranks& /*ranks*/) const { return false; }
  /// Whether the arrays of a call are reduced on `gpu`, which holds all of this rank, if one does.
  /// Ranks that must do it alike agree on it. All ranks of a machine ask, once they have agreed on
  /// the call.
  virtual Task<bool> reduces_on(Ranks& ranks, std::optional<Device> gpu) {
    co_return gpu&& takes_gpus(ranks);
  }

  /// All ranks get the same bits.
  virtual Task<> reduce(Ranks& ranks, std::vector<Bucket> buckets) = 0;
};

class Codec : public Method {
 public:
  /// `per_rank`: each rank compresses its own values, where others share memory with it, too.
  explicit Codec(bool per_rank) : per_rank_(per_rank) {}

  bool feeds_back(const Communicator&, std::span<const Parameters>) const override { return false; }
  bool per_rank() const { return per_rank_; }

  /// Whether all ranks must be at the same step, as they draw the same random numbers.
  virtual bool draws_alike() const { return false; }

  /// `residual`: of the whole bucket, and where that is, or empty; `step` counts calls.
  virtual Task<> reduce(Ranks& ranks, Bucket bucket, std::span<float> residual,
                        std::uint64_t step) = 0;

  /// Without error feedback, in which steps are those of this codec.
  Task<> reduce(Ranks& ranks, std::vector<Bucket> buckets) override;

  std::atomic<std::uint64_t> steps = 0;  // so far

 private:
  const bool per_rank_;
};

}  // namespace ronde
