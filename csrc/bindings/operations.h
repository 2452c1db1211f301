// The methods of a communicator that are bound in files of their own.
#pragma once

#include <pybind11/pybind11.h>

#include "collective/communicator.h"

namespace ronde {

void bind_operations(pybind11::module_& module, pybind11::class_<Communicator>& communicator);
void bind_groups(pybind11::module_& module, pybind11::class_<Communicator>& communicator);

}  // namespace ronde
