#include "collective/host_coding.h"

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "kernels/kernels.h"

namespace ronde {

std::byte* HostCoding::begin(const Cut& cut) {
  auto& how = summand_.compression;
  if (auto chosen = how.compressor->for_vector(summand_.values, how.residual))
    how.compressor = std::move(chosen);
  sums_ = compressor().for_sums();
  if (!how.gathers) total_.resize(cut.longest);
  messages_ = Bytes(cut.messages);
  return messages_.data();
}

Coding::Step HostCoding::encode(const Range& segment, Payload& payload) {
  payload.length = compressor().encode(summand_.values.subspan(segment.offset, segment.count),
                                       residual(segment), {key(), segment.offset}, payload.memory);
  return 0;
}

/// The residual, which is in units of a contribution, is in those of the result meanwhile.
Coding::Step HostCoding::encode_sum(const Range& segment, std::span<const Payload> parts,
                                    Payload& sum) {
  float* const total = total_.data();
  add(segment, parts, total);
  const Draw draw{key(), segment.offset};
  if (sums_) {
    sum.length = sums_->encode({total, segment.count}, {}, draw, sum.memory);
    return 0;
  }
  const auto left = residual_of_sum(segment);
  prescale({.dtype = DType::float32, .prescale = summand_.factor}, left.data(), left.size());
  sum.length = compressor().encode({total, segment.count}, left, draw, sum.memory);
  postscale({.dtype = DType::float32, .divisor = summand_.factor}, left.data(), left.size());
  return 0;
}

Coding::Step HostCoding::store_sum(const Range& segment, std::span<const Payload> parts) {
  add(segment, parts, summand_.result.data() + segment.offset);
  return 0;
}

/// In the order of the ranks; times the factor at once, before a compressor can overflow.
void HostCoding::add(const Range& segment, std::span<const Payload> parts, float* total) const {
  const std::span out(total, segment.count);
  for (std::size_t rank = 0; rank < parts.size(); ++rank) {
    if (parts[rank].memory) {
      decode(parts[rank], out, rank == 0 ? Store::copy : Store::add, static_cast<int>(rank));
    } else {
      const float* const own = summand_.values.data() + segment.offset;
      if (rank == 0)
        std::copy_n(own, segment.count, total);
      else
        reduce(ReduceOp::sum, DType::float32, total, total, own, segment.count);
    }
  }
  prescale({.dtype = DType::float32, .prescale = summand_.factor}, total, segment.count);
}

Coding::Step HostCoding::decode(const Range& segment, const Payload& sum, int owner) {
  decode(sum, summand_.result.subspan(segment.offset, segment.count), Store::copy, owner);
  return 0;
}

void HostCoding::decode(const Payload& payload, std::span<float> out, Store store, int from) const {
  try {
    compressor().decode({payload.memory, payload.length}, out, store);
  } catch (const ArgumentError& error) {
    refuse(from, error.what());
  }
}

}  // namespace ronde
