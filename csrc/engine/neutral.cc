#include "engine/neutral.h"

#include <utility>

#include "core/bytes.h"
#include "kernels/neutral.h"

namespace ronde {

Description description_of(const Submission& submission, Lane& lane) {
  const auto& outlines = submission.outlines();
  if (outlines) return {submission.call(), outlines(), false, submission.scheduled()};
  Recording recording(lane);
  Operation operation(submission.call());
  const auto& fusable = submission.fusable();
  if (fusable) {
    (void)recording.allreduce(operation, {&fusable->piece, 1}, fusable->reduction, {});
  } else {
    Routes routes(lane, recording);
    (void)submission.task(routes, operation);
  }
  return {submission.call(), std::move(recording.outlines), fusable.has_value(),
          submission.scheduled()};
}

std::shared_ptr<Submission> neutral_submission(Description description) {
  auto& outlines = description.outlines;
  Submission::What what{std::move(description.call), {}, {}, description.scheduled};
  Bytes memory;
  if (description.fusable) {
    const auto& reduction = outlines[0].reduction;
    memory = Bytes(outlines[0].bytes);
    fill_neutral(reduction, memory.buffer());
    what.fusable = Fusable{{memory.buffer(), memory.buffer()}, reduction};
  }
  what.begin = [outlines = std::move(outlines)](Routes& routes, Operation& operation) {
    return take_part(routes, operation, outlines);
  };
  return std::make_shared<Submission>(std::move(what), memory.owner());
}

}  // namespace ronde
