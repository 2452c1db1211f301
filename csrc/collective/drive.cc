#include "collective/drive.h"

#include <exception>

#include "collective/wait.h"

namespace ronde {

void drive(RootTask& task, const Operation& operation, Lane& lane, Turns& turns, Watch& watch) {
  auto progress = task.progress();
  Wait wait(lane.settings().spin);
  while (progress != Progress::done) {
    if (lane.control().run_requests()) {
      progress = task.progress();
      continue;
    }
    std::exception_ptr error;
    const auto check = [&](double elapsed) {
      lane.control().hooks().check_signals();
      watch.check(elapsed, task.peer());
    };
    try {
      if (progress == Progress::moved) {
        if (wait.moved()) check(0);
      } else {
        // Nothing wakes this thread for what moves meanwhile.
        if (lane.control().meanwhile()) {
          Several several(task.patience());
          wait.pause(several);
        } else {
          wait.pause(task);
        }
        if (wait.due()) {
          check(wait.elapsed());
          turns.require_members(operation, watch, wait.elapsed());
        }
      }
    } catch (...) {
      error = std::current_exception();
    }
    progress = error ? task.interrupt(error) : task.progress();
  }
}

}  // namespace ronde
