// Scatter and allgather. M. Barnett, L. Shuler, R. van de Geijn et al., "Interprocessor collective
// communication library (InterCom)", Scalable High Performance Computing Conference (1994).
//
//   broadcast  the root scatters its vector along a binomial tree, then all gather it round a ring:
//              ceil(log2 P) + P-1 steps, 2n(P-1)/P elements from the root.
// For long vectors: a tree broadcast sends n elements ceil(log2 P) times.
#include "schedule/table.h"

namespace ronde::scatter_allgather {

Schedule broadcast(const Layout& layout) {
  return then(tree::scatter(layout), ring::allgather(layout));
}

}  // namespace ronde::scatter_allgather
