#include "bindings/bindings.h"

PYBIND11_MODULE(_core, module) {
  module.doc() = "The native core of Ronde. Its types are internal; the API is `ronde`.";
  module.attr("__version__") = RONDE_VERSION;
  ronde::bind_core(module);
  ronde::bind_kernels(module);
  ronde::bind_cuda(module);
  ronde::bind_tensor(module);
  ronde::bind_on_device(module);
  ronde::bind_dlpack(module);
  ronde::bind_compress(module);
  ronde::bind_transport(module);
  ronde::bind_schedule(module);
  ronde::bind_trace(module);
  ronde::bind_methods(module);
  ronde::bind_collective(module);
  ronde::bind_python_methods(module);
  ronde::bind_engine(module);
}
