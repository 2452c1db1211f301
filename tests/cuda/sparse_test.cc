// Payloads of sparse compressors on a device, against the processor's, bit for bit.
#include "cuda/sparse.h"

#include <cstdio>

#include "compress/threshold.h"
#include "core/error.h"
#include "selection.h"

namespace ronde::cuda {
namespace {

using Bytes = std::vector<std::byte>;

template <class T>
std::span<const std::byte> bytes_of(std::span<const T> all) {
  return std::as_bytes(all);
}

/// What a threshold of 1 selects with about this probability.
std::vector<float> vector(double density, std::size_t count, std::mt19937_64& random) {
  std::uniform_real_distribution<double> uniform;
  std::vector<float> x(count);
  for (auto& value : x) {
    const double chance = uniform(random);
    value = static_cast<float>(chance < density ? 2 + chance : chance * 0.99 / 2);
    if (random() % 2) value = -value;
    if (random() % 1000 == 0 && density > 0) value = random() % 2 ? NAN : INFINITY;
  }
  return x;
}

class Payloads {
 public:
  std::mt19937_64& random() { return random_; }
  int written = 0, read = 0, refused = 0;

  /// Returns the payloads of segments that end at these positions.
  std::vector<Bytes> write(const std::vector<float>& values, const std::vector<std::size_t>& ends) {
    Picker picker(values, {}, kernels());
    picker.take(0, values.size(), std::bit_cast<std::int32_t>(1.0f) - 1);
    const auto& selected = picker.entries();
    const auto count = static_cast<u32>(selected.size());
    const OnDevice positions(device_, stream_, std::as_bytes(selected.positions())),
        entries(device_, stream_, std::as_bytes(selected.values())),
        number(device_, stream_, bytes_of(std::span(&count, 1)));

    std::vector<Segment> segments;
    std::vector<Bytes> expected;
    std::vector<u64> lengths;
    std::size_t begin = 0, room = 0;
    for (const std::size_t end : ends) {
      const auto span = std::span(values).subspan(begin, end - begin);
      segments.push_back({static_cast<u32>(begin), static_cast<u32>(span.size()), room});
      Bytes payload(kThreshold.capacity(span.size()));
      payload.resize(kThreshold.encode(span, {}, {}, payload.data()));
      room += payload.size() + 4 * (random_() % 3);
      lengths.push_back(payload.size());
      expected.push_back(std::move(payload));
      begin = end;
    }
    const OnDevice payloads(device_, stream_, room, 4 * (random_() % 4)),
        found(device_, stream_, ends.size() * sizeof(u64));
    // (That there was no room for some entries is not the payloads' business.)
    const Entries given{as<u32>(positions), as<float>(entries), count, as<u32>(number)};
    write_payloads(device_, stream_, given, segments, payloads.data(), as<u64>(found));

    Bytes all(room, std::byte{0xab});  // what is between them stays
    for (std::size_t i = 0; i < segments.size(); ++i)
      std::ranges::copy(expected[i],
                        all.begin() + static_cast<std::ptrdiff_t>(segments[i].payload));
    CHECK(payloads.bytes() == all);
    CHECK(std::ranges::equal(found.bytes(), bytes_of(std::span<const u64>(lengths))));
    ++written;
    return expected;
  }

  /// Reads bytes as a payload of so many values, as the processor does.
  void decode(const Bytes& payload, std::size_t count, Store store) {
    std::vector<float> before(count);
    for (auto& x : before) x = static_cast<float>(random_() % 100);
    auto expected = before;
    bool refuses = false;
    try {
      kThreshold.decode(payload, expected, store);
    } catch (const ArgumentError&) {
      refuses = true;
    }
    const u32 none = 0;
    const std::span<const float> was(before);
    const OnDevice given(device_, stream_, payload, 4 * (random_() % 4)),
        out(device_, stream_, bytes_of(was), 4 * (random_() % 4)),
        malformed(device_, stream_, bytes_of(std::span(&none, 1))),
        scratch(device_, stream_, read_payload_scratch(count));
    read_payload(device_, stream_, {given.data(), payload.size()}, {as<float>(out), count}, store,
                 as<u32>(malformed), scratch.data());
    CHECK((malformed.bytes()[0] == std::byte{1}) == refuses);
    const std::span<const float> wanted(expected);
    CHECK(refuses || same(DType::float32, out.bytes(), bytes_of(wanted), store == Store::add));
    ++(refuses ? refused : read);
  }

 private:
  const Threshold kThreshold{1.0f};
  Device& device_ = Device::get(0);
  const Stream stream_{device_};
  std::mt19937_64 random_{seed()};
};

/// A few wrong bytes, mostly at the beginning, or a wrong length.
Bytes corrupted(Bytes payload, std::mt19937_64& random) {
  if (random() % 5 == 0) {
    payload.resize(random() % (payload.size() + 8));
    return payload;
  }
  for (auto times = 1 + random() % 2; times > 0; --times) {
    const auto most = random() % 2 ? payload.size() : std::min<std::size_t>(payload.size(), 24);
    payload[random() % most] ^= static_cast<std::byte>(1u << random() % 8);
  }
  return payload;
}

void test() {
  Payloads payloads;
  auto& random = payloads.random();
  for (const std::size_t count : {1, 7, 31, 100, 1024, 3333, 65536, 65537, 150000}) {
    for (const double density : {0.0, 0.001, 0.04, 0.3, 0.95, 1.0}) {
      const auto values = vector(density, count, random);
      std::vector<std::size_t> ends;
      const std::size_t most = count / (1 + random() % 4);
      if (random() % 3 == 0) ends.push_back(count);
      for (std::size_t end = ends.empty() ? 0 : count; end < count;) {
        end = std::min(count, end + 32 * (random() % (most / 32 + 2)));
        ends.push_back(end);
        if (ends.size() > 4) end = count;
      }
      if (ends.back() != count) ends.push_back(count);
      const auto written = payloads.write(values, ends);
      std::size_t begin = 0;
      for (std::size_t i = 0; i < ends.size(); ++i) {
        const std::size_t length = ends[i] - begin;
        begin = ends[i];
        if (i > 1) continue;
        payloads.decode(written[i], length, random() % 2 ? Store::copy : Store::add);
        const auto wrong = corrupted(written[i], random);
        payloads.decode(wrong, length, random() % 2 ? Store::copy : Store::add);
      }
    }
  }
  // More segments than one launch has.
  std::vector<std::size_t> ends;
  for (std::size_t i = 1; i <= 300; ++i) ends.push_back(32 * i);
  payloads.write(vector(0.05, ends.back(), random), ends);
  CHECK(payloads.refused > 10);
  std::printf("%d written, %d read, %d refused\n", payloads.written, payloads.read,
              payloads.refused);
}

}  // namespace
}  // namespace ronde::cuda

int main() { ronde::cuda::test(); }
