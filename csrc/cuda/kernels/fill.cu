// Memory filled with one element: a thread stores 16 bytes at once.
#include "device.h"
#include "fill.h"

namespace ronde::cuda {
namespace {

struct alignas(16) Packet {
  u64 halves[2];
};

DEVICE void store_byte(const Fill& a, u64 at) {
  const u64 place = reinterpret_cast<u64>(a.to + at) % 8;
  a.to[at] = static_cast<u8>(a.pattern >> 8 * place);
}

}  // namespace

KERNEL(fill, Fill, a) {
  const u64 before = -reinterpret_cast<u64>(a.to) % sizeof(Packet);
  const u64 head = before < a.bytes ? before : a.bytes;
  const u64 packets = (a.bytes - head) / sizeof(Packet), end = head + packets * sizeof(Packet);
  auto* const to = reinterpret_cast<Packet*>(a.to + head);
  for (u64 i = thread(); i < packets; i += threads()) to[i] = {{a.pattern, a.pattern}};
  if (thread() < head) store_byte(a, thread());
  if (thread() < a.bytes - end) store_byte(a, end + thread());
}

}  // namespace ronde::cuda
