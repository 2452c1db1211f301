#include "collective/share.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "collective/exchange.h"
#include "collective/memory.h"
#include "core/error.h"
#include "node/segment.h"

namespace ronde {

Neighbours neighbours_of(int rank, int size, std::span<const int> machines) {
  const auto machine_of = [&](int member) { return machines.empty() ? 0 : machines[member]; };
  std::map<int, std::vector<int>> by_machine;
  for (int member = 0; member < size; ++member) by_machine[machine_of(member)].push_back(member);
  const auto& here = by_machine.at(machine_of(rank));
  const auto local_rank = std::find(here.begin(), here.end(), rank) - here.begin();
  std::vector<int> same_local_rank;
  for (const auto& [machine, members] : by_machine) {
    if (members.size() != here.size())
      throw ArgumentError("the machines have different numbers of ranks");
    same_local_rank.push_back(members[local_rank]);
  }
  return {here, static_cast<int>(local_rank), same_local_rank};
}

Task<> share_memory(Lane& lane, Operation& operation, Neighbours neighbours) {
  const auto& here = neighbours.here;
  co_await lane.agree(operation);
  const int ranks = static_cast<int>(here.size());
  const std::size_t bytes = Board::bytes_for(ranks);
  std::shared_ptr<Segment> segment;
  if (neighbours.local_rank == 0) {
    try {
      segment = Segment::create(bytes);
    } catch (const UnavailableError& error) {
      lane.control().hooks().warn(error.what());
    }
  }
  std::string own = segment ? segment->address() : "";
  const auto addresses = co_await exchange_texts(lane, operation, std::move(own));
  const auto& address = addresses[here[0]];
  if (neighbours.local_rank != 0 && !address.empty()) segment = Segment::open(address, bytes);

  // A path may lead to the memory of another job. Only who truly shares it sees the signatures,
  // whose word holds something of this job that no other has: an address and the time.
  const auto words = operation.zeros<std::uint64_t>(lane.size());
  words[lane.rank()] =
      reinterpret_cast<std::uintptr_t>(&lane) +
      static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
  co_await exchange_all(lane, Chunks::even(words.size_bytes(), lane.size()), buffer_of(words));
  const auto word = words[here[0]];
  const auto board =
      segment ? std::make_shared<Board>(segment, neighbours.local_rank, ranks) : nullptr;
  if (board) board->sign(word);
  co_await lane.agree(operation);
  const auto seen = operation.zeros<std::uint8_t>(lane.size());
  seen[lane.rank()] = board && board->all_signed(word);
  co_await exchange_all(lane, Chunks::even(seen.size_bytes(), lane.size()), buffer_of(seen));
  if (std::find(seen.begin(), seen.end(), 0) != seen.end()) co_return;
  lane.share(board, std::move(neighbours));
}

}  // namespace ronde
