// What sparse compressors select on a GPU, with the bits of the host's.
#pragma once

#include <cstddef>

#include "cuda/top_k.h"

namespace ronde {

class GpuSelection {
 public:
  /// The bytes of scratch memory for a vector of so many elements, all of which may be entries.
  virtual std::size_t scratch(const cuda::Device& device, std::size_t count) const = 0;

  /// Enqueues the selection of what is sent of a vector that is not empty.
  virtual void select(cuda::Device& device, cuda::StreamHandle stream, const cuda::Input& input,
                      const cuda::Entries& out, std::byte* scratch) const = 0;

 protected:
  ~GpuSelection() = default;
};

}  // namespace ronde
