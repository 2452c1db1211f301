// The payloads of sparse compressors on a device, with the bits of the processor's
// (compress/sparse.h).
#pragma once

#include <cstddef>
#include <span>

#include "cuda/device.h"
#include "cuda/kernels/sparse.h"
#include "kernels/codec.h"

namespace ronde::cuda {

/// Enqueues the writing of a payload for each segment, which has the entries of the vector that are
/// in it, in the shortest form: at most 8 bytes and 4 for each element. lengths[i], in memory of
/// the device, becomes the length of the i-th. `payloads` begins at a multiple of 4 bytes, too.
void write_payloads(Device& device, StreamHandle stream, const Entries& entries,
                    std::span<const Segment> segments, std::byte* payloads, u64* lengths);

/// A payload in memory of a device, at a multiple of 4 bytes.
struct Payload {
  const std::byte* data;
  std::size_t bytes;
};

/// The bytes of scratch memory that read_payload() needs, which begins at a multiple of 256 bytes.
std::size_t read_payload_scratch(std::size_t count);

/// Enqueues the decoding of a payload of `count` values, less than 2^32, which are stored in `out`
/// or added to it. If it is no such payload, *malformed (of the device) becomes 1, otherwise it
/// stays; `out` may then be written in part.
void read_payload(Device& device, StreamHandle stream, const Payload& payload, std::span<float> out,
                  Store store, u32* malformed, std::byte* scratch);

}  // namespace ronde::cuda
