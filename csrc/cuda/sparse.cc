#include "cuda/sparse.h"

#include <algorithm>
#include <limits>
#include <string>

#include "core/error.h"
#include "cuda/layout.h"

namespace ronde::cuda {
namespace {

std::size_t parts_of(std::size_t count) { return (count + kPart - 1) / kPart; }

void check_alignment(const void* memory) {
  if (reinterpret_cast<std::uintptr_t>(memory) % sizeof(float))
    throw ArgumentError("a sparse payload on a device begins at a multiple of 4 bytes");
}

}  // namespace

void write_payloads(Device& device, StreamHandle stream, const Entries& entries,
                    std::span<const Segment> segments, std::byte* payloads, u64* lengths) {
  while (!segments.empty()) {
    const auto some = segments.first(std::min<std::size_t>(segments.size(), kMostSegments));
    SparseWrite a{};
    a.entries = entries;
    a.payloads = reinterpret_cast<u8*>(payloads);
    a.lengths = lengths;
    for (const auto& segment : some) {
      check_alignment(payloads + segment.payload);
      a.segment[a.segments] = segment;
      // One without elements has a header.
      const auto parts = static_cast<u32>(std::max<std::size_t>(1, parts_of(segment.count)));
      a.first_parts[a.segments + 1] = a.first_parts[a.segments] + parts;
      ++a.segments;
    }
    device.launch(stream, "sparse_write", std::size_t{a.first_parts[a.segments]} * kThreads, a);
    segments = segments.subspan(some.size());
    lengths += some.size();
  }
}

std::size_t read_payload_scratch(std::size_t count) {
  Layout layout(nullptr);
  layout.take<u32>(parts_of(count));
  return layout.bytes();
}

void read_payload(Device& device, StreamHandle stream, const Payload& payload, std::span<float> out,
                  Store store, u32* malformed, std::byte* scratch) {
  if (out.size() > std::numeric_limits<u32>::max())
    throw ArgumentError("a sparse payload has less than 2^32 values");
  check_alignment(payload.data);
  if (store == Store::copy) device.fill(stream, out.data(), 0, out.size_bytes());
  SparseRead a{.payload = reinterpret_cast<const u8*>(payload.data),
               .bytes = payload.bytes,
               .out = out.data(),
               .count = static_cast<u32>(out.size()),
               .parts = static_cast<u32>(parts_of(out.size())),
               .adds = store == Store::add,
               .counts = nullptr,
               .malformed = malformed};
  Layout layout(scratch);
  a.counts = layout.take<u32>(a.parts);
  const std::size_t threads = std::size_t{a.parts} * kThreads;
  device.launch(stream, "sparse_survey", threads, a);
  device.launch(stream, "sparse_scatter", threads, a);
}

}  // namespace ronde::cuda
