// Weighted sums of two vectors (kernels/kernels.h). A thread has two packets of 16 bytes of each
// under way.
#include "packets.h"
#include "weighted.h"

namespace ronde::cuda {
namespace {

template <class T>
struct Adding {
  const AddWeighted& a;

  template <int kPackets, int kItems>
  DEVICE void step(u64 first, u64 at, u64 apart) {
    using N = typename Values<T>::Number;
    const N left_weight = static_cast<N>(a.left_weight);
    const N right_weight = static_cast<N>(a.right_weight);
    const auto* const left = packets<kItems>(static_cast<const T*>(a.left), first);
    const auto* const right = packets<kItems>(static_cast<const T*>(a.right), first);
    auto* const out = packets<kItems>(static_cast<T*>(a.out), first);
    Packet<T, kItems> x[kPackets], y[kPackets];
    UNROLL for (int p = 0; p < kPackets; ++p) {
      x[p] = left[at + p * apart];
      y[p] = right[at + p * apart];
    }
    UNROLL for (int p = 0; p < kPackets; ++p) {
      UNROLL for (int i = 0; i < kItems; ++i) {
        const N sum = Values<T>::widen(x[p].items[i]) * left_weight +
                      Values<T>::widen(y[p].items[i]) * right_weight;
        x[p].items[i] = Values<T>::narrow(sum);
      }
      out[at + p * apart] = x[p];
    }
  }
};

template <class T>
DEVICE void add_weighted(const AddWeighted& a) {
  constexpr int kItems = 16 / static_cast<int>(sizeof(T));
  Adding<T> adding{a};
  const u64 before = before_packets<kItems>(static_cast<const T*>(a.out));
  const bool alike = packet_begins<kItems>(static_cast<const T*>(a.left), before) &&
                     packet_begins<kItems>(static_cast<const T*>(a.right), before);
  work_through<2, kItems>(adding, alike, before, a.count);
}

}  // namespace

KERNEL(weighted_float16, AddWeighted, a) { add_weighted<Half>(a); }
KERNEL(weighted_bfloat16, AddWeighted, a) { add_weighted<BFloat16>(a); }
KERNEL(weighted_float32, AddWeighted, a) { add_weighted<float>(a); }
KERNEL(weighted_float64, AddWeighted, a) { add_weighted<double>(a); }

}  // namespace ronde::cuda
