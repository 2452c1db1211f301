// What the core needs from the language above it. None of it is called on a fast path.
#pragma once

#include <functional>
#include <string>

#include "core/function_ref.h"

namespace ronde {

struct Hooks {
  /// Throws if the user wants to stop (Ctrl-C).
  std::function<void()> check_signals = [] {};
  /// "train.py:42", where the caller's program stands in the call under way.
  std::function<std::string()> where = [] { return std::string(); };
  /// Shows a warning to the user.
  std::function<void(const std::string&)> warn = [](const std::string&) {};
  /// Runs functions that tasks have asked for (requests.h), with what they need to call Python.
  std::function<void(FunctionRef<void()>)> enter = [](FunctionRef<void()> run) { run(); };
  /// This rank gives up waiting: shows what it and its neighbours do.
  std::function<void()> stalled = [] {};
  /// Takes a line of how a call goes; empty where nobody reads it.
  std::function<void(const std::string&)> log;
};

}  // namespace ronde
