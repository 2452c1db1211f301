// Collectives of a communicator in one line, for tests.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "collective/communicator.h"

namespace ronde {

inline Call call(const std::string& kind) {
  Call result;
  result.kind = kind;
  return result;
}

inline void allreduce(Communicator& set, const Call& call, std::span<const Piece> pieces,
                      const Reduction& reduction = {}, std::string_view algorithm = {}) {
  set.run(call, Collective::allreduce, algorithm, [&](Route& route, Operation& operation) {
    return route.allreduce(operation, pieces, reduction, algorithm);
  });
}

inline void reduce_scatter(Communicator& set, const Call& call, ConstBuffer input, Buffer output,
                           const Chunks& chunks) {
  set.run(call, Collective::reduce_scatter, {}, [&](Route& route, Operation& operation) {
    return route.reduce_scatter(operation, input, output, chunks, {}, {});
  });
}

inline void reduce(Communicator& set, const Call& call, const Piece& piece, int root) {
  set.run(call, Collective::reduce, {}, [&](Route& route, Operation& operation) {
    return route.reduce(operation, piece, {}, root, {});
  });
}

inline void broadcast(Communicator& set, const Call& call, Buffer data, int root) {
  set.run(call, Collective::broadcast, {}, [&](Route& route, Operation& operation) {
    return route.broadcast(operation, data, root, {});
  });
}

template <class T>
Task<> keep_result(T& result, Task<T> task) {
  T made = co_await std::move(task);
  result = std::move(made);
}

inline Gathered allgather(Communicator& set, const Call& call, const Contribution& mine) {
  Gathered all;
  set.run(call, Collective::allgather, {}, [&](Route& route, Operation& operation) {
    return keep_result(all, route.allgather(operation, mine, {}));
  });
  return all;
}

inline Gathered alltoall(Communicator& set, const Call& call, const Rows& rows) {
  Gathered all;
  set.run(call, Collective::alltoall, {}, [&](Route& route, Operation& operation) {
    return keep_result(all, route.alltoall(operation, rows, {}));
  });
  return all;
}

inline void barrier(Communicator& set, const Call& call) {
  set.run(call, Collective::broadcast, {},
          [](Route& route, Operation& operation) { return route.barrier(operation); });
}

}  // namespace ronde
