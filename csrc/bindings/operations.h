// The methods of a communicator that are bound in files of their own.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>

#include "bindings/caller.h"
#include "collective/communicator.h"
#include "engine/engine.h"

namespace ronde {

/// A function of a call as a method of a communicator, which makes the call to its end.
template <class... Arguments>
auto method(const Communicator*, pybind11::object (*function)(const Caller&, Arguments...)) {
  return [function](Communicator& self, Arguments... arguments) {
    return function(Caller(self), arguments...);
  };
}

/// As a method of an engine, which takes the set of the call first.
template <class... Arguments>
auto method(const Engine*, pybind11::object (*function)(const Caller&, Arguments...)) {
  return [function](Engine& self, Communicator& set, Arguments... arguments) {
    return function(Caller(set, &self), arguments...);
  };
}

void bind_operations(pybind11::module_& module, pybind11::class_<Communicator>& communicator);
void bind_operations(pybind11::class_<Engine, std::shared_ptr<Engine>>& engine);
void bind_groups(pybind11::module_& module, pybind11::class_<Communicator>& communicator);
void bind_groups(pybind11::class_<Engine, std::shared_ptr<Engine>>& engine);

}  // namespace ronde
