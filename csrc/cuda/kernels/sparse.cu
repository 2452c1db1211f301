// Payloads of sparse compressors (compress/sparse.h), written from the entries of a vector, and
// read.
//
// A block works on one part of a span after another. Where the entries of a part begin is searched
// for in their positions when a payload is written; when it is read, those of all parts are counted
// first (survey).
#include "block.h"
#include "sparse.h"

namespace ronde::cuda {
namespace {

// The payload -------------------------------------------------------------------------------------

enum Form : u32 { kOffsets, kBitmap, kDense };

constexpr u32 kGrain = 32;  // a word of a bitmap

struct Header {
  u32 form, entries;
};

DEVICE u32 parts_of(u32 count) { return count / kPart + (count % kPart > 0); }
DEVICE u32 words_of(u32 count) { return count / kGrain + (count % kGrain > 0); }

/// Where the 16-bit offsets begin, behind the header.
DEVICE u64 offsets_begin(u32 count) { return sizeof(Header) + sizeof(u32) * u64{parts_of(count)}; }

/// Where the entries begin.
DEVICE u64 entries_begin(Header header, u32 count) {
  switch (header.form) {
    case kOffsets:
      return offsets_begin(count) + (sizeof(u16) * u64{header.entries} + 3) / 4 * 4;
    case kBitmap:
      return sizeof(Header) + sizeof(u32) * u64{words_of(count)};
    default:
      return sizeof(Header);
  }
}

DEVICE u64 length_of(Header header, u32 count) {
  return entries_begin(header, count) + sizeof(float) * u64{header.entries};
}

/// The shortest form.
DEVICE Header best(u32 entries, u32 count) {
  Header found{kDense, count};
  for (const Form form : {kBitmap, kOffsets}) {
    const Header other{form, entries};
    if (length_of(other, count) <= length_of(found, count)) found = other;
  }
  return found;
}

DEVICE u32 length_of_part(u32 part, u32 count) {
  const u32 left = count - part * kPart;
  return left < kPart ? left : kPart;
}

// Writing -----------------------------------------------------------------------------------------

/// How many of the positions are less than `end`. A warp compares 32 at once.
DEVICE u32 positions_before(const u32* positions, u32 count, u64 end) {
  u32 first = 0;  // those before it are less, those from first + count on are not
  while (count > 0) {
    const u32 each = (count - 1) / kWarp + 1;
    const u64 probe = u64{lane() + 1} * each - 1;
    const bool less = probe < count && positions[first + probe] < end;
    const u32 passed = static_cast<u32>(__popc(__ballot_sync(kAllLanes, less))) * each;
    first += passed;
    count = count - passed < each - 1 ? count - passed : each - 1;
  }
  return first;
}

/// A part of a segment, and its entries among those of the whole vector.
struct Part {
  Segment segment;
  u32 number, length;
  u64 position;                    // of the first element
  u32 segment_begin, segment_end;  // entries
  u32 begin, end;
};

DEVICE Part part_of(const SparseWrite& a, u32 segment, u32 number) {
  __shared__ u32 found[4];
  Part part;
  part.segment = a.segment[segment];
  part.number = number;
  part.length = length_of_part(number, part.segment.count);
  const u64 first = part.segment.begin;
  part.position = first + u64{number} * kPart;
  if (warp() < 4) {
    const u64 ends[] = {first, first + part.segment.count, part.position,
                        part.position + part.length};
    const u64 end = warp() == 0 ? ends[0] : warp() == 1 ? ends[1] : warp() == 2 ? ends[2] : ends[3];
    const u32 selected = *a.entries.count;
    const u32 there = selected < a.entries.room ? selected : a.entries.room;
    const u32 before = positions_before(a.entries.positions, there, end);
    if (lane() == 0) found[warp()] = before;
  }
  __syncthreads();
  part.segment_begin = found[0];
  part.segment_end = found[1];
  part.begin = found[2];
  part.end = found[3];
  __syncthreads();
  return part;
}

DEVICE void write_offsets(const SparseWrite& a, const Part& part, u8* payload) {
  u32* const counts = reinterpret_cast<u32*>(payload + sizeof(Header));
  u16* const offsets = reinterpret_cast<u16*>(payload + offsets_begin(part.segment.count));
  for (u32 i = part.begin + threadIdx.x; i < part.end; i += kThreads)
    offsets[i - part.segment_begin] = static_cast<u16>(a.entries.positions[i] - part.segment.begin);
  if (threadIdx.x > 0 || part.length == 0) return;
  counts[part.number] = part.end - part.begin;
  const u32 entries = part.segment_end - part.segment_begin;
  if (part.end == part.segment_end && part.begin < part.end && entries % 2) offsets[entries] = 0;
}

DEVICE void write_bitmap(const SparseWrite& a, const Part& part, u8* payload) {
  __shared__ u32 words[kPart / kGrain];
  const u32 count = words_of(part.length);
  for (u32 i = threadIdx.x; i < count; i += kThreads) words[i] = 0;
  __syncthreads();
  for (u32 i = part.begin + threadIdx.x; i < part.end; i += kThreads) {
    const u32 offset = static_cast<u32>(a.entries.positions[i] - part.position);
    atomicOr(&words[offset / kGrain], u32{1} << offset % kGrain);
  }
  __syncthreads();
  u32* const index =
      reinterpret_cast<u32*>(payload + sizeof(Header)) + part.number * (kPart / kGrain);
  for (u32 i = threadIdx.x; i < count; i += kThreads) index[i] = words[i];
  __syncthreads();
}

/// All values, most of which are entries.
DEVICE void write_dense(const SparseWrite& a, const Part& part, u8* payload) {
  float* const values =
      reinterpret_cast<float*>(payload + sizeof(Header)) + u64{part.number} * kPart;
  for (u32 i = threadIdx.x; i < part.length; i += kThreads) values[i] = 0;
  __syncthreads();
  for (u32 i = part.begin + threadIdx.x; i < part.end; i += kThreads)
    values[a.entries.positions[i] - part.position] = a.entries.values[i];
}

DEVICE void write_part(const SparseWrite& a, u32 segment, u32 number) {
  const Part part = part_of(a, segment, number);
  u8* const payload = a.payloads + part.segment.payload;
  const Header header = best(part.segment_end - part.segment_begin, part.segment.count);
  if (number == 0 && threadIdx.x == 0) {
    *reinterpret_cast<Header*>(payload) = header;
    a.lengths[segment] = length_of(header, part.segment.count);
  }
  if (header.form == kDense) return write_dense(a, part, payload);
  if (header.form == kOffsets)
    write_offsets(a, part, payload);
  else
    write_bitmap(a, part, payload);
  float* const entries =
      reinterpret_cast<float*>(payload + entries_begin(header, part.segment.count));
  for (u32 i = part.begin + threadIdx.x; i < part.end; i += kThreads)
    entries[i - part.segment_begin] = a.entries.values[i];
}

// Reading -----------------------------------------------------------------------------------------

DEVICE void report(const SparseRead& a) { atomicOr(a.malformed, u32{1}); }

DEVICE Header header_of(const SparseRead& a) {
  return a.bytes < sizeof(Header) ? Header{kDense + 1, 0}
                                  : *reinterpret_cast<const Header*>(a.payload);
}

/// Whether the payload has its whole length.
DEVICE bool is_whole(Header header, const SparseRead& a) {
  return header.form <= kDense && header.entries <= a.count &&
         (header.form != kDense || header.entries == a.count) &&
         length_of(header, a.count) == a.bytes;
}

/// A word of the bitmap, without what is beyond the end.
DEVICE u32 word_of(const SparseRead& a, u32 number) {
  const u32 word = reinterpret_cast<const u32*>(a.payload + sizeof(Header))[number];
  const u32 left = a.count - number * kGrain;
  const u32 inside = left < kGrain ? (u32{1} << left) - 1 : ~u32{0};
  if (word & ~inside) report(a);
  return word & inside;
}

/// The entries of a part. All threads of a block call it; the first has the result.
DEVICE u32 count_part(const SparseRead& a, Header header, u32 part) {
  const u32 length = length_of_part(part, a.count);
  if (header.form == kDense) return length;
  if (header.form == kOffsets) {
    const u32 count = reinterpret_cast<const u32*>(a.payload + sizeof(Header))[part];
    if (count > length && threadIdx.x == 0) report(a);
    return count < length ? count : length;
  }
  u32 mine = 0;
  for (u32 i = threadIdx.x; i < words_of(length); i += kThreads)
    mine += static_cast<u32>(__popc(word_of(a, part * (kPart / kGrain) + i)));
  return sum_of_block(mine).total;
}

/// What is read of a part.
struct Source {
  const float* entries;  // its own
  u32 count;
  float* out;
  u32 length;
};

DEVICE void store(const SparseRead& a, float* to, float entry) {
  *to = a.adds ? *to + entry : entry;
}

DEVICE void scatter_offsets(const SparseRead& a, const Source& source, const u16* offsets) {
  for (u32 i = threadIdx.x; i < source.count; i += kThreads) {
    const u32 offset = offsets[i];
    if (offset < source.length && (i == 0 || offsets[i - 1] < offset))
      store(a, source.out + offset, source.entries[i]);
    else
      report(a);
  }
}

/// A warp takes a word at once, a bit in each lane.
DEVICE void scatter_bitmap(const SparseRead& a, const Source& source, u32 first_word) {
  constexpr u32 kEach = kPart / kGrain / kWarps;  // words of a warp
  const u32 words = words_of(source.length);
  const auto word_at = [&](u32 chunk) {
    const u32 number = warp() * kEach + chunk + lane();
    return number < words ? word_of(a, first_word + number) : 0;
  };
  u32 marked = 0;
  UNROLL for (u32 chunk = 0; chunk < kEach; chunk += kWarp) marked +=
      static_cast<u32>(__popc(word_at(chunk)));
  u32 before = __shfl_sync(kAllLanes, sum_of_block(marked).before, 0);
  ROLLED for (u32 chunk = 0; chunk < kEach; chunk += kWarp) {
    const u32 words_here = word_at(chunk), marks = static_cast<u32>(__popc(words_here)),
              up_to_here = sum_up_to_lane(marks), begin = before + up_to_here - marks;
    before += __shfl_sync(kAllLanes, up_to_here, kWarp - 1);
    constexpr u32 kAtOnce = 4;
    ROLLED for (u32 first = 0; first < kWarp; first += kAtOnce) {
      float values[kAtOnce];
      u32 there = 0;
      float* const out = source.out + (warp() * kEach + chunk + first) * kGrain + lane();
      UNROLL for (u32 i = 0; i < kAtOnce; ++i) {
        const u32 word = __shfl_sync(kAllLanes, words_here, first + i);
        const u32 entry = __shfl_sync(kAllLanes, begin, first + i) +
                          static_cast<u32>(__popc(word & lanes_below()));
        if (!(word >> lane() & 1) || entry >= source.count) continue;
        there |= u32{1} << i;
        values[i] = a.adds ? out[i * kGrain] + source.entries[entry] : source.entries[entry];
      }
      UNROLL for (u32 i = 0; i < kAtOnce; ++i) {
        if (there >> i & 1) out[i * kGrain] = values[i];
      }
    }
  }
}

DEVICE void scatter_dense(const SparseRead& a, const Source& source) {
  constexpr u32 kAtOnce = 4;
  ROLLED for (u32 first = threadIdx.x; first < source.length; first += kAtOnce * kThreads) {
    const float* const entries = source.entries + first;
    float* const out = source.out + first;
    const u32 left = source.length - first;
    float values[kAtOnce];
    UNROLL for (u32 i = 0; i < kAtOnce; ++i) {
      if (i * kThreads < left)
        values[i] = a.adds ? out[i * kThreads] + entries[i * kThreads] : entries[i * kThreads];
    }
    UNROLL for (u32 i = 0; i < kAtOnce; ++i) {
      if (i * kThreads < left) out[i * kThreads] = values[i];
    }
  }
}

}  // namespace

// The kernels -------------------------------------------------------------------------------------

KERNEL(sparse_write, SparseWrite, a) {
  u32 segment = 0;
  for (u32 part = blockIdx.x; part < a.first_parts[a.segments]; part += gridDim.x) {
    while (a.first_parts[segment + 1] <= part) ++segment;
    write_part(a, segment, part - a.first_parts[segment]);
  }
}

KERNEL(sparse_survey, SparseRead, a) {
  const Header header = header_of(a);
  if (!is_whole(header, a)) {
    if (thread() == 0) report(a);
    return;
  }
  for (u32 part = blockIdx.x; part < a.parts; part += gridDim.x) {
    const u32 count = count_part(a, header, part);
    if (threadIdx.x == 0) a.counts[part] = count;
  }
}

KERNEL(sparse_scatter, SparseRead, a) {
  const Header header = header_of(a);
  if (!is_whole(header, a)) return;
  const u32 first = static_cast<u32>(u64{blockIdx.x} * a.parts / gridDim.x),
            last = static_cast<u32>((u64{blockIdx.x} + 1) * a.parts / gridDim.x);
  u32 mine = 0;
  for (u32 part = threadIdx.x; part < first; part += kThreads) mine += a.counts[part];
  u32 before = sum_of_block(mine).total;
  const u16* const offsets = reinterpret_cast<const u16*>(a.payload + offsets_begin(a.count));
  const float* const entries =
      reinterpret_cast<const float*>(a.payload + entries_begin(header, a.count));
  for (u32 part = first; part < last; ++part) {
    const u32 left = before < header.entries ? header.entries - before : 0, here = a.counts[part];
    const Source source{entries + before, here < left ? here : left, a.out + u64{part} * kPart,
                        length_of_part(part, a.count)};
    if (header.form == kOffsets)
      scatter_offsets(a, source, offsets + before);
    else if (header.form == kBitmap)
      scatter_bitmap(a, source, part * (kPart / kGrain));
    else
      scatter_dense(a, source);
    before += here;
  }
  if (last < a.parts || threadIdx.x > 0) return;
  const bool padded =
      header.form != kOffsets || header.entries % 2 == 0 || offsets[header.entries] == 0;
  if (before != header.entries || !padded) report(a);
}

}  // namespace ronde::cuda
