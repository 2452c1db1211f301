#include "collective/exchange.h"

#include <memory>
#include <utility>

#include "collective/execution.h"
#include "collective/memory.h"
#include "collective/mismatch.h"
#include "core/error.h"
#include "core/text.h"

namespace ronde {
namespace {

constexpr std::size_t kTextBytes = 64 << 10;  // of a call or a call site

}  // namespace

Task<> exchange_all(Lane& lane, Chunks chunks, Buffer data) {
  const Layout layout{.rank = lane.rank(), .chunks = std::move(chunks), .inputs = {}};
  const auto& ring = find_algorithm(Collective::allgather, "ring");
  const auto round = std::make_shared<Execution>(
      lane.transport(), std::make_shared<Schedule>(ring.build(layout)), Operands{{}, data},
      Element{}, lane.exchange_tag(), Depth{}, "exchange of descriptions");
  co_await round;
}

Task<std::vector<std::string>> exchange_texts(Lane& lane, Operation& operation, std::string mine) {
  const auto lengths = operation.zeros<std::size_t>(lane.size());
  lengths[lane.rank()] = mine.size();
  co_await exchange_all(lane, Chunks::even(lengths.size_bytes(), lane.size()), buffer_of(lengths));

  const Chunks chunks = Chunks::of(lengths);
  const Bytes all = operation.allocate(chunks.total());
  copy(chunk_of(all.buffer(), chunks[lane.rank()]),
       {reinterpret_cast<const std::byte*>(mine.data()), mine.size()});
  co_await exchange_all(lane, chunks, all.buffer());

  std::vector<std::string> texts;
  for (int rank = 0; rank < lane.size(); ++rank) {
    const auto chunk = chunk_of(all.buffer(), chunks[rank]);
    texts.emplace_back(reinterpret_cast<const char*>(chunk.data), chunk.bytes);
  }
  co_return texts;
}

Task<> raise_mismatch(Lane& lane, Operation& operation) {
  auto& control = lane.control();
  // Before anything else: when the others have this rank's text, they may call it in a process set.
  if (control.ends_here()) control.go_on();
  operation.patient = false;  // all are here
  std::string call(cut(operation.call.text(), kTextBytes));
  const auto calls = co_await exchange_texts(lane, operation, std::move(call));
  std::string place(cut(control.hooks().where(), kTextBytes));
  const auto places = co_await exchange_texts(lane, operation, std::move(place));
  std::vector<Described> described;
  for (int rank = 0; rank < lane.size(); ++rank) described.push_back({calls[rank], places[rank]});
  throw MismatchError(mismatch_message(described, lane.members(), lane.set()));
}

}  // namespace ronde
