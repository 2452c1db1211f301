// Asynchronous calls of which a rank that has joined takes part with neutral values.
#pragma once

#include <memory>

#include "collective/outline.h"
#include "engine/submission.h"

namespace ronde {

/// Of a call of this rank, for those that lack it.
Description description_of(const Submission& submission, Lane& lane);

/// The call, on such a rank.
std::shared_ptr<Submission> neutral_submission(Description description);

}  // namespace ronde
