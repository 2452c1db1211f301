// Whether any value of some arrays is NaN, infinite, or too large. The bits of floating types
// without their signs are in the order of the magnitudes, with infinity and then NaN behind all
// others: so the greatest of them tells.
#include "finite.h"
#include "packets.h"
#include "units.h"

namespace ronde::cuda {
namespace {

constexpr u32 kPacket = 16, kPackets = kFiniteUnit / kPacket;

/// T: as many bits as an element. They are loaded in words, as packets of 16 bits would take more
/// registers than there are.
template <class T>
struct Greatest {
  using Word = T;
  T magnitude = 0;

  DEVICE void take(T bits) {
    const T other = bits & (~T{0} >> 1);
    magnitude = other > magnitude ? other : magnitude;
  }
  DEVICE void take_word(T word) { take(word); }
};

template <>
struct Greatest<u16> {
  using Word = u32;
  u32 magnitude = 0;

  DEVICE void take(u32 bits) {
    const u32 other = bits & 0x7fff;
    magnitude = other > magnitude ? other : magnitude;
  }
  DEVICE void take_word(u32 word) {
    take(word);
    take(word >> 16);
  }
};

/// kCount packets of each lane, a row of the warp apart.
template <int kCount, int kWords, class T>
DEVICE void take(Greatest<T>& greatest, const Packet<typename Greatest<T>::Word, kWords>* from) {
  Packet<typename Greatest<T>::Word, kWords> loaded[kCount];
  UNROLL for (int p = 0; p < kCount; ++p) loaded[p] = from[p * kWarp];
  UNROLL for (int p = 0; p < kCount; ++p) {
    UNROLL for (int i = 0; i < kWords; ++i) greatest.take_word(loaded[p].items[i]);
  }
}

/// What a lane sees of one unit: the first one has what is before and behind whole packets, too.
template <class T>
DEVICE bool within_limit(const FiniteArray& array, u64 unit) {
  using Word = typename Greatest<T>::Word;
  constexpr int kItems = kPacket / sizeof(T), kWords = kPacket / sizeof(Word), kAtOnce = 2;
  const auto* const values = reinterpret_cast<const T*>(array.data);
  const u64 count = array.bytes / sizeof(T), before = before_packets<kItems>(values);
  const u64 head = before < count ? before : count;
  const u64 whole = (count - head) / kItems, end = head + whole * kItems;
  Greatest<T> greatest;
  if (unit == 0) {
    if (lane() < head) greatest.take(values[lane()]);
    if (lane() < count - end) greatest.take(values[end + lane()]);
  }
  const u64 begin = unit * kPackets, left = begin < whole ? whole - begin : 0;
  const u32 here = static_cast<u32>(left < kPackets ? left : kPackets);
  const auto* const from = reinterpret_cast<const Packet<Word, kWords>*>(values + head) + begin;
  u32 at = lane();
  ROLLED for (; at + (kAtOnce - 1) * kWarp < here; at += kAtOnce * kWarp)
      take<kAtOnce>(greatest, from + at);
  ROLLED for (; at < here; at += kWarp) take<1>(greatest, from + at);
  return greatest.magnitude <= array.limit;
}

}  // namespace

KERNEL(find_beyond, Finite, a) {
  bool within = true;
  ROLLED for (u64 unit = thread() / kWarp; unit < a.units; unit += threads() / kWarp) {
    const FiniteArray& array = a.arrays[array_of(a.arrays, a.count, unit)];
    const u64 own = unit - array.first_unit;
    if (array.size == 2)
      within &= within_limit<u16>(array, own);
    else if (array.size == 4)
      within &= within_limit<u32>(array, own);
    else
      within &= within_limit<u64>(array, own);
  }
  if (__syncthreads_or(!within) && threadIdx.x == 0) atomicOr(a.beyond, 1u);
}

}  // namespace ronde::cuda
