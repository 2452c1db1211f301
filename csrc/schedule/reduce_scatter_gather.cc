// Reduce-scatter and gather. R. Rabenseifner, "Optimization of collective reduction operations",
// International Conference on Computational Science (2004).
//
//   reduce  the vector is reduced round a ring, a chunk to each rank, then the root receives the
//           chunks: P-1 steps and one, 2n(P-1)/P elements to the root.
// For long vectors: a tree reduce receives n elements ceil(log2 P) times.
#include "schedule/table.h"

namespace ronde::reduce_scatter_gather {

Schedule reduce(const Layout& layout) {
  return then(ring::reduce_scatter(layout), direct::gather(layout));
}

}  // namespace ronde::reduce_scatter_gather
