#include "methods/compressing.h"

#include "collective/compressed.h"
#include "methods/draws.h"

namespace ronde {

bool Compressing::takes_gpus(const Ranks& ranks) const {
  return ranks.on_one_machine() || compresses_on_gpu(ranks.lane(), *compressor_, false);
}

Task<bool> Compressing::reduces_on(Ranks& ranks, std::optional<Device> gpu) {
  if (takes_gpus(ranks)) return Codec::reduces_on(ranks, gpu);
  return sums_on_gpus(ranks.lane(), ranks.operation, *compressor_, gpu);
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
