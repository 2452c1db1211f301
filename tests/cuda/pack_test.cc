// Arrays into a bucket and back, at all alignments.
#include "cuda/pack.h"

#include <algorithm>
#include <cstdio>
#include <memory>

#include "on_device.h"

namespace {

using namespace ronde;
using namespace ronde::cuda;

using Bytes = std::vector<std::byte>;

constexpr std::size_t kGuard = 40;  // bytes on either side of what is written
const Bytes kUntouched(kGuard, std::byte{0xab});

struct Piece {
  std::size_t bytes;
  std::size_t behind;  // bytes after what is well aligned
};

class Buckets {
 public:
  void run(const std::vector<Piece>& pieces, std::size_t behind) {
    std::vector<Bytes> arrays;
    Bytes bucket;
    for (const auto& piece : pieces) {
      auto& array = arrays.emplace_back(piece.bytes);
      for (auto& byte : array) byte = static_cast<std::byte>(random_());
      bucket.insert(bucket.end(), array.begin(), array.end());
    }
    check_pack(pieces, arrays, bucket, behind);
    check_unpack(pieces, arrays, bucket, behind);
    ++cases;
  }

  /// One after another, without waiting in between: each has its own table.
  void enqueue_many() {
    Bytes bytes(3000);
    for (auto& byte : bytes) byte = static_cast<std::byte>(random_());
    const OnDevice source(device_, stream_, bytes);
    std::vector<std::unique_ptr<OnDevice>> results;
    for (std::size_t i = 0; i < 50; ++i) {
      const Array halves[] = {{source.data() + i, 100 + i}, {source.data() + 50 * i, 150 - i}};
      results.push_back(std::make_unique<OnDevice>(device_, stream_, 250));
      pack(device_, stream_, halves, results.back()->data());
    }
    for (std::size_t i = 0; i < results.size(); ++i) {
      Bytes expected(bytes.begin() + i, bytes.begin() + 100 + 2 * i);
      expected.insert(expected.end(), bytes.begin() + 50 * i, bytes.begin() + 150 + 49 * i);
      CHECK(results[i]->bytes() == expected);
    }
    ++cases;
  }

  std::mt19937_64& random() { return random_; }
  int cases = 0;

 private:
  static Bytes guarded(const Bytes& bytes) {
    Bytes all = kUntouched;
    all.insert(all.end(), bytes.begin(), bytes.end());
    all.insert(all.end(), kUntouched.begin(), kUntouched.end());
    return all;
  }

  /// What is read has its exact size, what is written a guard.
  void check_pack(const std::vector<Piece>& pieces, const std::vector<Bytes>& arrays,
                  const Bytes& bucket, std::size_t behind) {
    std::vector<std::unique_ptr<OnDevice>> there;
    std::vector<Array> table;
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      there.push_back(std::make_unique<OnDevice>(device_, stream_, arrays[i], pieces[i].behind));
      table.push_back({there[i]->data(), pieces[i].bytes});
    }
    const OnDevice result(device_, stream_, bucket.size() + 2 * kGuard, behind);
    pack(device_, stream_, table, result.data() + kGuard);
    std::ranges::fill(table, Array{nullptr, 1});  // the span may end
    CHECK(result.bytes() == guarded(bucket));
  }

  void check_unpack(const std::vector<Piece>& pieces, const std::vector<Bytes>& arrays,
                    const Bytes& bucket, std::size_t behind) {
    std::vector<std::unique_ptr<OnDevice>> there;
    std::vector<Array> table;
    for (const auto& piece : pieces) {
      there.push_back(
          std::make_unique<OnDevice>(device_, stream_, piece.bytes + 2 * kGuard, piece.behind));
      table.push_back({there.back()->data() + kGuard, piece.bytes});
    }
    const OnDevice packed(device_, stream_, bucket, behind);
    unpack(device_, stream_, packed.data(), table);
    for (std::size_t i = 0; i < pieces.size(); ++i) CHECK(there[i]->bytes() == guarded(arrays[i]));
  }

  Device& device_ = Device::get(0);
  const Stream stream_{device_};
  std::mt19937_64 random_{seed()};
};

}  // namespace

int main() {
  Buckets buckets;
  auto& random = buckets.random();
  const auto alignment = [&] { return random() % 2 ? random() % 4 * 16 : random() % 70; };
  // Every length up to a few packets, and longer ones, at every distance from alignment.
  for (int round = 0; round < 4; ++round) {
    std::vector<Piece> pieces;
    for (std::size_t bytes = 0; bytes < 72; ++bytes) pieces.push_back({bytes, random() % 16});
    for (std::size_t i = 0; i < 16; ++i) pieces.push_back({1001, (random() % 4 + 4 * i) % 16});
    std::ranges::shuffle(pieces, random);
    buckets.run(pieces, random() % 16);
  }
  buckets.run({}, 0);
  buckets.run({{0, 0}, {0, 3}}, 5);
  for (const std::size_t bytes : {1, 16, 8191, 8192, 8193, 16384, 100000}) {
    buckets.run({{bytes, 0}}, 0);
    buckets.run({{bytes, alignment()}}, alignment());
  }
  // As many arrays as the search for one of them makes different.
  for (const std::size_t count : {31, 32, 33, 1025})
    buckets.run(std::vector<Piece>(count, {1 + random() % 3, random() % 5}), alignment());
  // In a table where a longer one was before, whose end must not be read.
  buckets.run(std::vector<Piece>(64, {1, 0}), 0);
  buckets.run(std::vector<Piece>(57, {8193, 0}), 0);
  buckets.enqueue_many();
  // Long and short ones.
  for (int round = 0; round < 6; ++round) {
    std::vector<Piece> pieces(1 + random() % 60);
    for (auto& [bytes, behind] : pieces) {
      bytes = random() % (std::size_t{1} << random() % 16);
      behind = alignment();
    }
    pieces.push_back({200000, alignment()});
    std::ranges::shuffle(pieces, random);
    buckets.run(pieces, alignment());
  }
  std::printf("%d buckets\n", buckets.cases);
}
