#include "methods/compressing.h"

#include "collective/compressed.h"
#include "methods/draws.h"

namespace ronde {

bool Compressing::takes_gpus(const Ranks& ranks) const {
  return ranks.on_one_machine() || compresses_on_gpu(ranks.lane(), *compressor_, false);
}

Task<> Compressing::reduce(Ranks& ranks, Bucket bucket, std::span<float> residual,
                           std::uint64_t step) {
  if (ranks.on_one_machine()) {
    co_await ranks.allreduce(bucket);
    co_return;
  }
  const Compression compression{
      .compressor = compressor_, .residual = residual, .key = key_of(seed_, step, bucket.name())};
  const auto pieces = ranks.lend(bucket.pieces());
  co_await allreduce_compressed(ranks.lane(), ranks.operation, pieces, bucket.reduction,
                                compression);
  ranks.take_back(pieces);
}

}  // namespace ronde
