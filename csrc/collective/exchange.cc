#include "collective/exchange.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "collective/execution.h"
#include "collective/memory.h"
#include "collective/mismatch.h"
#include "core/packed.h"
#include "core/text.h"

namespace ronde {
namespace {

constexpr std::size_t kTextBytes = 64 << 10;  // of a call or a call site

/// What a rank says where calls differ.
struct Said {
  Join join;
  std::uint64_t fingerprint;
  std::string call;

  template <class Archive, class Self>
  static void each_field(Archive& archive, Self& self) {
    archive(self.join, self.fingerprint, self.call);
  }
};

/// Without a first rank if all have joined, or do not agree about averages.
SomeJoined joined_among(const std::vector<Said>& said) {
  std::vector<std::string> calls;
  for (const auto& each : said) calls.push_back(each.call);
  SomeJoined some(std::move(calls));
  bool equal = true;
  Join join = Join::no;
  for (std::size_t rank = 0; rank < said.size(); ++rank) {
    if (said[rank].join == Join::no) {
      if (some.first < 0) some.first = static_cast<int>(rank);
      continue;
    }
    if (!some.joined.empty()) equal &= said[rank].join == join;
    join = said[rank].join;
    some.joined.push_back(static_cast<int>(rank));
  }
  if (join == Join::contributing) some.divisor = static_cast<int>(said.size() - some.joined.size());
  if (!equal) some.first = -1;
  return some;
}

bool others_agree(const std::vector<Said>& said) {
  std::optional<std::uint64_t> fingerprint;
  return std::ranges::all_of(said, [&](const Said& each) {
    if (each.join != Join::no) return true;
    if (!fingerprint) fingerprint = each.fingerprint;
    return each.fingerprint == *fingerprint;
  });
}

/// An allgather in `data` among some ranks, by ring.
Task<> exchange_among(Lane& lane, Transport& ranks, Chunks chunks, Buffer data) {
  const Layout layout{.rank = ranks.rank(), .chunks = std::move(chunks), .inputs = {}};
  const auto& ring = find_algorithm(Collective::allgather, "ring");
  const auto round = std::make_shared<Execution>(
      ranks, std::make_shared<Schedule>(ring.build(layout)), Operands{{}, data}, Element{},
      lane.exchange_tag(), Depth{}, "exchange of descriptions");
  co_await round;
}

Task<std::vector<std::string>> exchange_texts_among(Lane& lane, Transport& ranks,
                                                    Operation& operation, std::string mine) {
  const auto lengths = operation.zeros<std::size_t>(ranks.size());
  lengths[ranks.rank()] = mine.size();
  const auto even = Chunks::even(lengths.size_bytes(), ranks.size());
  co_await exchange_among(lane, ranks, even, buffer_of(lengths));

  const Chunks chunks = Chunks::of(lengths);
  const Bytes all = operation.allocate(chunks.total());
  copy(chunk_of(all.buffer(), chunks[ranks.rank()]),
       {reinterpret_cast<const std::byte*>(mine.data()), mine.size()});
  co_await exchange_among(lane, ranks, chunks, all.buffer());

  std::vector<std::string> texts;
  for (int rank = 0; rank < ranks.size(); ++rank) {
    const auto chunk = chunk_of(all.buffer(), chunks[rank]);
    texts.emplace_back(reinterpret_cast<const char*>(chunk.data), chunk.bytes);
  }
  co_return texts;
}

/// With `why`, unless it is only that they differ.
Task<> raise_described(Lane& lane, Operation& operation, std::vector<std::string> calls,
                       std::string why) {
  std::string place(cut(lane.control().hooks().where(), kTextBytes));
  const auto places = co_await exchange_texts(lane, operation, std::move(place));
  std::vector<Described> described;
  for (int rank = 0; rank < lane.size(); ++rank) described.push_back({calls[rank], places[rank]});
  auto message = mismatch_message(described, lane.members(), lane.set());
  if (!why.empty()) message += "\n" + why;
  throw MismatchError(message);
}

}  // namespace

Task<> exchange_all(Lane& lane, Chunks chunks, Buffer data) {
  return exchange_among(lane, lane.transport(), std::move(chunks), data);
}

Task<std::vector<std::string>> exchange_texts(Lane& lane, Operation& operation, std::string mine) {
  return exchange_texts_among(lane, lane.transport(), operation, std::move(mine));
}

Task<std::vector<std::string>> exchange_texts_here(Lane& lane, Operation& operation,
                                                   std::string mine) {
  return exchange_texts_among(lane, *lane.inside(), operation, std::move(mine));
}

Task<> raise_mismatch(Lane& lane, Operation& operation) {
  // Before anything else: when the others have this rank's text, they may call it in a process set.
  if (lane.control().ends_here()) lane.control().go_on();
  operation.patient = false;  // all are here
  const auto& call = operation.call;
  const Said mine{operation.join, call.fingerprint(), std::string(cut(call.text(), kTextBytes))};
  const auto texts = co_await exchange_texts(lane, operation, packed(mine));
  std::vector<Said> said;
  for (const auto& text : texts) said.push_back(unpacked<Said>(text));
  const auto some = joined_among(said);
  if (some.first >= 0 && !some.joined.empty() && others_agree(said)) throw some;
  std::string why;
  if (some.first < 0) why = kSameAverage;
  co_await raise_described(lane, operation, some.calls, why);
}

Task<Description> described(Lane& lane, Operation& operation, SomeJoined some, Description mine) {
  std::string own;
  if (lane.rank() == some.first) own = packed(mine);
  const auto texts = co_await exchange_texts(lane, operation, std::move(own));
  auto call = unpacked<Description>(texts[some.first]);
  const auto why = refusal(call, some.joined, lane.members());
  if (!why.empty()) co_await raise_described(lane, operation, some.calls, why);
  co_return call;
}

Task<int> last_to_join(Lane& lane, Operation& operation, std::uint64_t rounds) {
  operation.patient = false;  // all are here
  const auto all = operation.zeros<std::uint64_t>(lane.size());
  all[lane.rank()] = rounds;
  co_await exchange_all(lane, Chunks::even(all.size_bytes(), lane.size()), buffer_of(all));
  const auto last = std::min_element(all.rbegin(), all.rend());
  co_return static_cast<int>(all.rend() - last) - 1;
}

}  // namespace ronde
