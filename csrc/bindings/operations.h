// The methods of a communicator that are bound in files of their own.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>

#include "collective/communicator.h"
#include "engine/engine.h"

namespace ronde {

void bind_operations(pybind11::module_& module, pybind11::class_<Communicator>& communicator);
void bind_operations(pybind11::class_<Engine, std::shared_ptr<Engine>>& engine);
void bind_groups(pybind11::module_& module, pybind11::class_<Communicator>& communicator);

}  // namespace ronde
