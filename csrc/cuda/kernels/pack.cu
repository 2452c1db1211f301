// Arrays of any length into a bucket, one after another, and back.
//
// Nouns:
//   unit    what a warp copies at a time: 512 packets of 16 bytes of an array, so that a long array
//           is shared by many warps, and short ones take a warp each
//   packet  16 bytes that are aligned where they are stored. They are loaded by one load where the
//           source is aligned too, otherwise taken from two aligned loads, of which the cache has
//           the second for the neighbour
//   edge    the bytes before and after the packets; the first unit of an array copies them
#include "pack.h"
#include "packets.h"
#include "units.h"

namespace ronde::cuda {
namespace {

constexpr u32 kPacket = 16, kPackets = kPackUnit / kPacket;

using Words = Packet<u32, 4>;

/// 16 bytes from byte `by` of the 32 on. (An index that is known when this is compiled is needed
/// for words to stay in registers.)
DEVICE Words shifted(const Words& low, const Words& high, u32 by) {
  u32 words[8];
  UNROLL for (int i = 0; i < 4; ++i) {
    words[i] = low.items[i];
    words[4 + i] = high.items[i];
  }
  UNROLL for (int i = 0; i < 6; ++i) words[i] = by & 8 ? words[i + 2] : words[i];
  UNROLL for (int i = 0; i < 5; ++i) words[i] = by & 4 ? words[i + 1] : words[i];
  Words result;
  UNROLL for (int i = 0; i < 4; ++i) result.items[i] =
      __funnelshift_r(words[i], words[i + 1], by % 4 * 8);
  return result;
}

/// kCount packets of each lane, a row of the warp apart. The source was aligned down by `shift`.
template <int kCount, bool kShifted>
DEVICE void copy_packets(Words* to, const Words* from, u32 at, u32 shift) {
  Words low[kCount], high[kCount];
  UNROLL for (int i = 0; i < kCount; ++i) {
    low[i] = from[at + i * kWarp];
    if constexpr (kShifted) high[i] = from[at + i * kWarp + 1];
  }
  UNROLL for (int i = 0; i < kCount; ++i) to[at + i * kWarp] =
      kShifted ? shifted(low[i], high[i], shift) : low[i];
}

template <bool kShifted>
DEVICE void copy_packets(Words* to, const Words* from, u32 count, u32 shift) {
  constexpr int kAtOnce = kShifted ? 1 : 2;
  u32 at = lane();
  ROLLED for (; at + (kAtOnce - 1) * kWarp < count; at += kAtOnce * kWarp)
      copy_packets<kAtOnce, kShifted>(to, from, at, shift);
  ROLLED for (; at < count; at += kWarp) copy_packets<1, kShifted>(to, from, at, shift);
}

/// One unit of an array.
DEVICE void copy_unit(u8* to, const u8* from, u64 bytes, u64 unit) {
  u64 head = (kPacket - reinterpret_cast<u64>(to) % kPacket) % kPacket;
  const u32 shift = static_cast<u32>(reinterpret_cast<u64>(from + head) % kPacket);
  // Only the array's bytes are loaded: they must reach back by `shift` before the first packet, and
  // as far beyond the last one as its second load does.
  if (head < shift) head += kPacket;
  if (head > bytes) head = bytes;
  const u64 beyond = (kPacket - shift) % kPacket, rest = bytes - head;
  const u64 packets = rest < beyond ? 0 : (rest - beyond) / kPacket;
  if (unit == 0) {
    const u64 end = head + packets * kPacket;
    const bool before = lane() < head, after = lane() < bytes - end;
    u8 first, last;
    if (before) first = from[lane()];
    if (after) last = from[end + lane()];
    if (before) to[lane()] = first;
    if (after) to[end + lane()] = last;
  }
  const u64 begin = unit * kPackets;
  if (begin >= packets) return;
  const u32 count = static_cast<u32>(packets - begin < kPackets ? packets - begin : kPackets);
  auto* const target = reinterpret_cast<Words*>(to + head) + begin;
  const auto* const source = reinterpret_cast<const Words*>(from + head - shift) + begin;
  if (shift)
    copy_packets<true>(target, source, count, shift);
  else
    copy_packets<false>(target, source, count, 0);
}

template <bool kUnpack>
DEVICE void copy_all(const Pack& a) {
  ROLLED for (u64 unit = thread() / kWarp; unit < a.units; unit += threads() / kWarp) {
    const PackedArray array = a.arrays[array_of(a.arrays, a.count, unit)];
    u8* const packed = a.bucket + array.offset;
    copy_unit(kUnpack ? array.data : packed, kUnpack ? packed : array.data, array.bytes,
              unit - array.first_unit);
  }
}

}  // namespace

KERNEL(pack, Pack, a) { copy_all<false>(a); }
KERNEL(unpack, Pack, a) { copy_all<true>(a); }

}  // namespace ronde::cuda
