// What the core needs from the language above it. None of it is called on a fast path.
#pragma once

#include <functional>
#include <string>

namespace ronde {

struct Hooks {
  /// Throws if the user wants to stop (Ctrl-C).
  std::function<void()> check_signals = [] {};
  /// "train.py:42", where the caller's program stands in the call under way.
  std::function<std::string()> where = [] { return std::string(); };
  /// Shows a warning to the user.
  std::function<void(const std::string&)> warn = [](const std::string&) {};
  /// This rank gives up waiting: shows what it and its neighbours do.
  std::function<void()> stalled = [] {};
  /// Takes a line of how a call goes; empty where nobody reads it.
  std::function<void(const std::string&)> log;
};

}  // namespace ronde
