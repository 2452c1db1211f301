// The arithmetic of a compressed allreduce (compressed_allreduce.h): all that is done to values,
// payloads and residuals, apart from who sends what to whom.
//
// It is done in steps. They are begun in an order that depends on what arrives, and pass in that
// order: on the host at once (host_coding.h), on a GPU when its stream comes to them
// (gpu_coding.h). Before a step has passed, a payload that it makes must not be sent, and one that
// it takes must not be written to.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "compress/compressor.h"
#include "schedule/schedule.h"

namespace ronde {

/// How an allreduce is compressed.
struct Compression {
  std::shared_ptr<const Compressor> compressor;
  std::span<float> residual;  // of the whole vector, or empty: what is left out is lost then
  std::uint64_t key = 0;      // of random numbers, the same on all ranks
  bool per_rank = false;      // each rank's own values are compressed, on one machine too
  int rank = 0;               // in the set: each rank of a machine draws numbers of its own
  bool gathers = false;       // payloads, which are sparse: see better_gathered()
};

/// What a rank adds to a sum, and what it gets. Residual, values and result are in memory of the
/// same kind.
struct Summand {
  Compression compression;
  std::span<const float> values;
  std::span<float> result;  // may be the same memory
  float factor;             // of the sum
  int rank;                 // in whose order parts are added
};

class Coding {
 public:
  /// 0 has passed.
  using Step = std::uint64_t;

  /// In memory that begin() has given.
  struct Payload {
    std::byte* memory = nullptr;
    std::size_t length = 0;  // once the step that makes it has passed
  };

  /// How the vector is cut.
  struct Cut {
    std::vector<Range> slices;  // of each rank
    std::size_t longest;        // elements of a segment, at most
    std::size_t messages;       // bytes of memory that messages take
  };

  virtual ~Coding() = default;
  Coding(const Coding&) = delete;
  Coding& operator=(const Coding&) = delete;

  /// Before all steps: what depends on the whole vector. Returns the memory for messages.
  virtual std::byte* begin(const Cut& cut) = 0;

  /// Encodes a segment of the values.
  virtual Step encode(const Range& segment, Payload& payload) = 0;

  /// The sum of a segment of the own slice, encoded; or in the result, where payloads are gathered.
  /// There is a part of each rank; one without memory stands for this rank's values as they are.
  virtual Step encode_sum(const Range& segment, std::span<const Payload> parts, Payload& sum) = 0;
  virtual Step store_sum(const Range& segment, std::span<const Payload> parts) = 0;

  /// Decodes a sum of the slice of `owner`, for the result.
  virtual Step decode(const Range& segment, const Payload& sum, int owner) = 0;

  /// After all steps. Once it has passed, the result is complete.
  virtual Step end() = 0;

  /// Throws Error if a payload was none.
  virtual bool passed(Step step) = 0;

 protected:
  explicit Coding(Summand summand) : summand_(std::move(summand)) {}

  const Compressor& compressor() const { return *summand_.compression.compressor; }

  /// Of random numbers of this rank.
  std::uint64_t key() const {
    const auto& of = summand_.compression;
    return of.key + 0x9e3779b97f4a7c15 * static_cast<std::uint64_t>(of.rank + 1);
  }

  std::span<float> residual(const Range& range) const {
    const auto& all = summand_.compression.residual;
    return all.empty() ? all : all.subspan(range.offset, range.count);
  }
  /// For a sum. Where nothing of it would get into the result, it stays as it is.
  std::span<float> residual_of_sum(const Range& range) const {
    return summand_.factor != 0 ? residual(range) : std::span<float>();
  }

  /// Throws: the payload of a rank was none.
  [[noreturn]] void refuse(int from, const std::string& why) const;

  Summand summand_;
};

}  // namespace ronde
