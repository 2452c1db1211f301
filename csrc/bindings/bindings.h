// One function for each layer, called by module.cc.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

namespace ronde {

struct KernelTable;

/// The kernels of an instruction set; the best there are for an empty name. Throws ArgumentError.
const KernelTable& table(const std::string& simd);

void bind_core(pybind11::module_& module);
void bind_kernels(pybind11::module_& module);
void bind_cuda(pybind11::module_& module);
void bind_tensor(pybind11::module_& module);
void bind_on_device(pybind11::module_& module);
void bind_dlpack(pybind11::module_& module);
void bind_compress(pybind11::module_& module);
void bind_transport(pybind11::module_& module);
void bind_schedule(pybind11::module_& module);
void bind_trace(pybind11::module_& module);
void bind_collective(pybind11::module_& module);
void bind_methods(pybind11::module_& module);
void bind_python_methods(pybind11::module_& module);
void bind_engine(pybind11::module_& module);

}  // namespace ronde
