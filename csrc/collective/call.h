// One call of a collective: what the ranks must have in common, and how to speak of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/dtype.h"

namespace ronde {

/// The fields that all ranks must agree on; a field that does not apply, or that may differ (the
/// first dimension of an allgather, say), stays empty.
struct Call {
  std::string kind;  // "allreduce"
  std::string name;  // given by the caller, may be empty
  std::optional<DType> dtype;
  std::optional<std::vector<std::int64_t>> shape;
  bool any_first_dimension = false;  // shape[0] is shown but not compared
  std::string op;
  int root = -1;
  double prescale = 1.0;
  double postscale = 1.0;
  std::string detail;      // anything else that must agree, in words
  bool needs_all = false;  // no rank may have joined: it has more to do than this call
  /// Its fingerprint, where that is known: of a long description that is used again and again.
  std::optional<std::uint64_t> known_fingerprint = {};

  /// 64 bits of all that is compared. Equal calls have equal fingerprints.
  std::uint64_t fingerprint() const;

  /// Of its array, if it has a single one.
  std::size_t bytes() const;

  /// "allreduce 'grad' (float32, shape (3, 4), op=sum)"
  std::string text() const;

  template <class Archive, class Self>
  static void each_field(Archive& archive, Self& self) {
    archive(self.kind, self.name, self.dtype, self.shape, self.any_first_dimension, self.op,
            self.root, self.prescale, self.postscale, self.detail, self.needs_all);
  }
};

}  // namespace ronde
