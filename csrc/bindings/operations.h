#pragma once

#include <pybind11/pybind11.h>

#include "collective/communicator.h"

namespace ronde {

void bind_op(pybind11::module_& module);
void bind_operations(pybind11::module_& module, pybind11::class_<Communicator>& communicator);

}  // namespace ronde
