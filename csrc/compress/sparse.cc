#include "compress/sparse.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "compress/threshold.h"
#include "core/error.h"
#include "core/round.h"

namespace ronde {
namespace {

enum class Form : std::uint32_t { offsets, bitmap, dense };

struct Header {
  Form form;
  std::uint32_t entries;
};

constexpr std::size_t kBlock = 1 << 16;  // of 16-bit offsets

std::size_t blocks_of(std::size_t count) { return (count + kBlock - 1) / kBlock; }

std::size_t words_of(std::size_t count) { return (count + kGrain - 1) / kGrain; }

std::size_t index_bytes(Form form, std::size_t entries, std::size_t count) {
  switch (form) {
    case Form::offsets:
      return sizeof(std::uint32_t) * blocks_of(count) +
             rounded(sizeof(std::uint16_t) * entries, sizeof(float));
    case Form::bitmap:
      return sizeof(std::uint32_t) * words_of(count);
    case Form::dense:
      return 0;
  }
  throw ArgumentError("the payload has a form that no encoder writes");
}

/// A dense payload has an entry for each value.
std::size_t bytes_of(Header header, std::size_t count) {
  return sizeof(Header) + index_bytes(header.form, header.entries, count) +
         sizeof(float) * header.entries;
}

/// The shortest form.
Header best(std::size_t entries, std::size_t count) {
  const auto number = static_cast<std::uint32_t>(entries);
  Header found = {Form::dense, static_cast<std::uint32_t>(count)};
  for (const Form form : {Form::bitmap, Form::offsets}) {
    if (const Header other{form, number}; bytes_of(other, count) <= bytes_of(found, count))
      found = other;
  }
  return found;
}

template <class T>
T read(const std::byte* from, std::size_t position = 0) {
  T value;
  std::memcpy(&value, from + position * sizeof(T), sizeof(T));
  return value;
}

template <class T>
void write(std::byte* to, std::size_t position, std::type_identity_t<T> value) {
  std::memcpy(to + position * sizeof(T), &value, sizeof(T));
}

[[noreturn]] void refuse(const std::string& why) {
  throw ArgumentError("the payload of a sparse compressor " + why);
}

/// The positions of the entries of a payload, checked before they are used: calls f(entry,
/// position), and throws ArgumentError at the first that is wrong.
template <class F>
void for_each_offset(const std::byte* index, std::size_t entries, std::size_t count, F f) {
  const std::byte* const offsets = index + sizeof(std::uint32_t) * blocks_of(count);
  std::size_t entry = 0;
  for (std::size_t block = 0; block < blocks_of(count); ++block) {
    const std::size_t begin = block * kBlock, length = std::min(kBlock, count - begin);
    const std::size_t here = read<std::uint32_t>(index, block);
    if (here > entries - entry) refuse("counts more entries than it has");
    std::size_t least = 0;
    for (const std::size_t end = entry + here; entry < end; ++entry) {
      const std::size_t offset = read<std::uint16_t>(offsets, entry);
      if (offset < least || offset >= length) refuse("has offsets out of order or outside");
      f(entry, begin + offset);
      least = offset + 1;
    }
  }
  if (entry != entries) refuse("counts fewer entries than it has");
  if (entries % 2 && read<std::uint16_t>(offsets, entries)) refuse("is not filled up with 0");
}

template <class F>
void for_each_bit(const std::byte* index, std::size_t entries, std::size_t count, F f) {
  std::size_t entry = 0;
  for (std::size_t i = 0; i < count; i += kGrain) {
    auto word = read<std::uint32_t>(index, i / kGrain);
    if (count - i < kGrain && word >> (count - i)) refuse("marks values beyond the end");
    if (static_cast<std::size_t>(std::popcount(word)) > entries - entry)
      refuse("marks more values than it has entries");
    for (; word; word &= word - 1) f(entry++, i + static_cast<std::size_t>(std::countr_zero(word)));
  }
  if (entry != entries) refuse("marks fewer values than it has entries");
}

void write_offsets(std::span<const std::uint32_t> positions, std::uint64_t first, std::size_t count,
                   std::byte* index) {
  std::byte* const offsets = index + sizeof(std::uint32_t) * blocks_of(count);
  auto from = positions.begin();
  for (std::size_t block = 0; block < blocks_of(count); ++block) {
    const auto to = std::lower_bound(from, positions.end(), first + (block + 1) * kBlock);
    write<std::uint32_t>(index, block, static_cast<std::uint32_t>(to - from));
    from = to;
  }
  // A block has as many elements as there are numbers of 16 bits.
  for (std::size_t entry = 0; entry < positions.size(); ++entry)
    write<std::uint16_t>(offsets, entry, static_cast<std::uint16_t>(positions[entry] - first));
  if (positions.size() % 2) write<std::uint16_t>(offsets, positions.size(), 0);
}

void write_bitmap(std::span<const std::uint32_t> positions, std::uint64_t first, std::size_t count,
                  std::byte* index) {
  std::memset(index, 0, sizeof(std::uint32_t) * words_of(count));
  std::uint32_t word = 0;
  std::size_t last = 0;
  for (const std::uint32_t position : positions) {
    const std::size_t offset = position - first, here = offset / kGrain;
    word = (here == last ? word : 0) | 1u << offset % kGrain;
    write<std::uint32_t>(index, here, word);
    last = here;
  }
}

}  // namespace

std::size_t Sparse::capacity(std::size_t count) const {
  return bytes_of({Form::dense, 0}, count) + sizeof(float) * count;
}

std::size_t Sparse::length(std::size_t entries, std::size_t count) {
  return bytes_of(best(entries, count), count);
}

const Compressor* Sparse::for_sums() const {
  static const Threshold nonzero(std::numeric_limits<float>::denorm_min());
  return &nonzero;
}

std::size_t Sparse::encode(std::span<const float> values, std::span<float> residual, Draw,
                           std::byte* payload) const {
  return for_vector(values, residual)->encode(values, residual, {}, payload);
}

std::size_t Selection::encode(std::span<const float> values, std::span<float> residual, Draw,
                              std::byte* payload) const {
  Picker picker(values, residual, kernels_);
  select(picker);
  return write_payload(picker.entries().between(0, values.size()), 0, values.size(), payload);
}

std::size_t Sparse::write_payload(const EntrySpan& entries, std::uint64_t first, std::size_t count,
                                  std::byte* payload) {
  const auto& [positions, values] = entries;
  const Header header = best(positions.size(), count);
  std::memcpy(payload, &header, sizeof(header));
  std::byte* const index = payload + sizeof(Header);
  std::byte* const sent = index + index_bytes(header.form, header.entries, count);
  if (header.form == Form::dense) {
    std::memset(sent, 0, sizeof(float) * count);
    for (std::size_t entry = 0; entry < positions.size(); ++entry)
      write<float>(sent, positions[entry] - first, values[entry]);
  } else {
    (header.form == Form::offsets ? write_offsets : write_bitmap)(positions, first, count, index);
    std::ranges::copy(std::as_bytes(values), sent);
  }
  return bytes_of(header, count);
}

void Sparse::decode(std::span<const std::byte> payload, std::span<float> out, Store store) const {
  const std::size_t count = out.size();
  if (payload.size() < sizeof(Header)) refuse("is shorter than its header");
  const auto header = read<Header>(payload.data());
  if (header.entries > count || (header.form == Form::dense && header.entries != count))
    refuse("has " + std::to_string(header.entries) + " entries for " + std::to_string(count) +
           " values");
  if (const std::size_t expected = bytes_of(header, count); payload.size() != expected)
    refuse("has " + std::to_string(payload.size()) + " bytes, not the " + std::to_string(expected) +
           " of its header");

  const std::byte* const index = payload.data() + sizeof(Header);
  const std::byte* const entries = index + index_bytes(header.form, header.entries, count);
  const auto each = [&](auto f) {
    switch (header.form) {
      case Form::offsets:
        return for_each_offset(index, header.entries, count, f);
      case Form::bitmap:
        return for_each_bit(index, header.entries, count, f);
      case Form::dense:
        for (std::size_t position = 0; position < count; ++position) f(position, position);
    }
  };
  if (store == Store::copy) {
    std::fill(out.begin(), out.end(), 0.0f);
    each([&](std::size_t entry, std::size_t position) {
      out[position] = read<float>(entries, entry);
    });
  } else {
    each([&](std::size_t entry, std::size_t position) {
      out[position] += read<float>(entries, entry);
    });
  }
}

}  // namespace ronde
