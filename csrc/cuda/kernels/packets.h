// The types of elements, and how elementwise kernels go through vectors: by packets of several
// elements, which a thread loads and stores at once, and by single elements before the first and
// after the last whole packet.
#pragma once

#include "device.h"

namespace ronde::cuda {

// Types -------------------------------------------------------------------------------------------

/// A byte that is true unless it is 0.
struct Bool {
  u8 byte;
};

/// How elements become values to compute with, and those elements.
template <class T>
struct Values {
  using Number = T;
  static DEVICE T widen(T x) { return x; }
  static DEVICE T narrow(T x) { return x; }
};

template <>
struct Values<Bool> {
  using Number = u32;
  static DEVICE u32 widen(Bool x) { return x.byte != 0; }
  static DEVICE Bool narrow(u32 x) { return {static_cast<u8>(x)}; }
};

/// (In single bytes it takes too many registers from sm_100 on.)
template <>
struct Values<u8> {
  using Number = u32;
  static DEVICE u32 widen(u8 x) { return x; }
  static DEVICE u8 narrow(u32 x) { return static_cast<u8>(x); }
};

template <class T>
struct Halves {
  using Number = float;
  static DEVICE float widen(T x) { return cuda::widen(x); }
  static DEVICE T narrow(float x) { return cuda::narrow<T>(x); }
};

template <>
struct Values<Half> : Halves<Half> {};
template <>
struct Values<BFloat16> : Halves<BFloat16> {};

// Packets -----------------------------------------------------------------------------------------

/// kItems elements, which lie together.
template <class T, int kItems>
struct alignas(kItems * sizeof(T)) Packet {
  T items[kItems];
};

/// Packets from element `first` of a vector on.
template <int kItems, class T>
DEVICE Packet<T, kItems>* packets(T* vector, u64 first) {
  return reinterpret_cast<Packet<T, kItems>*>(vector + first);
}
template <int kItems, class T>
DEVICE const Packet<T, kItems>* packets(const T* vector, u64 first) {
  return reinterpret_cast<const Packet<T, kItems>*>(vector + first);
}

/// The elements before the first whole packet.
template <int kItems, class T>
DEVICE u64 before_packets(const T* vector) {
  constexpr u64 kBytes = kItems * sizeof(T);
  return (kBytes - reinterpret_cast<u64>(vector) % kBytes) % kBytes / sizeof(T);
}

/// Whether a whole packet of the vector begins at this element.
template <int kItems, class T>
DEVICE bool packet_begins(const T* vector, u64 element) {
  return reinterpret_cast<u64>(vector + element) % (kItems * sizeof(T)) == 0;
}

/// All elements, shared by all threads: if the vectors are `alike`, whole packets begin in all of
/// them at element `before`; what is before and behind goes by elements. A thread has kPackets
/// under way: `work.step<kPackets, kItems>(first, at, apart)` does those that stand at packet `at`
/// from element `first` on, at `at + apart`, and so on.
template <int kPackets, int kItems, class Work>
DEVICE void work_through(Work& work, bool alike, u64 before, u64 count) {
  const u64 head = alike && before < count ? before : count;
  const u64 whole = (count - head) / kItems, end = head + whole * kItems;
  u64 at = thread();
  for (; at + (kPackets - 1) * threads() < whole; at += kPackets * threads())
    work.template step<kPackets, kItems>(head, at, threads());
  if constexpr (kPackets > 1) {
    for (; at < whole; at += threads()) work.template step<1, kItems>(head, at, 0);
  }
  for (u64 i = thread(); i < head + (count - end); i += threads())
    work.template step<1, 1>(0, i < head ? i : end + (i - head), 0);
}

}  // namespace ronde::cuda
