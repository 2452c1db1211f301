#include "methods/compressing.h"

#include "collective/compressed.h"
#include "methods/draws.h"

namespace ronde {

Task<> Compressing::reduce(Ranks& ranks, Bucket bucket, std::span<float> residual,
                           std::uint64_t step) {
  const auto pieces = bucket.pieces();
  if (ranks.on_one_machine()) {
    co_await ranks.allreduce(pieces, bucket.reduction);
    co_return;
  }
  const Compression compression{
      .compressor = compressor_, .residual = residual, .key = key_of(seed_, step, bucket.name())};
  co_await allreduce_compressed(ranks.lane(), ranks.operation, pieces, bucket.reduction,
                                compression);
}

}  // namespace ronde
