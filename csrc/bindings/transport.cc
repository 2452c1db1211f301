#include "transport/transport.h"

#include <memory>

#include "bindings/bindings.h"
#include "transport/finalize.h"
#include "transport/inproc.h"
#include "transport/mpi.h"

namespace py = pybind11;

namespace ronde {

void bind_transport(py::module_& module) {
  py::class_<Transport, std::shared_ptr<Transport>>(module, "Transport")
      .def_property_readonly("rank", &Transport::rank)
      .def_property_readonly("size", &Transport::size);

  py::class_<MpiLibrary, std::shared_ptr<MpiLibrary>>(module, "MpiLibrary",
                                                      "The MPI library that mpi4py has loaded.")
      .def(py::init([](std::string extension, std::size_t handle_bytes, std::size_t status_bytes,
                       std::uint64_t byte_type, int any_source, int success) {
             return MpiLibrary::open({std::move(extension), handle_bytes, byte_type, any_source,
                                      success, status_bytes});
           }),
           py::kw_only(), py::arg("extension"), py::arg("handle_bytes"), py::arg("status_bytes"),
           py::arg("byte_type"), py::arg("any_source"), py::arg("success"))
      .def("transport", &MpiLibrary::transport, py::arg("communicator"), py::arg("rank"),
           py::arg("size"))
      .def("version", &MpiLibrary::version);

  module.def("find_finalize", &find_finalize, py::arg("extension"),
             "Before a fork: finds how mpi4py's module, a file, ends MPI.");
  module.def("skip_finalize", &skip_finalize, "In a forked child: MPI is not ended there.");

  py::class_<InprocWorld>(module, "InprocWorld", "Ranks as threads of one process, for tests.")
      .def(py::init([](int size, std::uint64_t seed, double delay, double truncate, int dies,
                       int dies_after) {
             return std::make_unique<InprocWorld>(size,
                                                  Faults{seed, delay, truncate, dies, dies_after});
           }),
           py::arg("size"), py::kw_only(), py::arg("seed") = 0, py::arg("delay") = 0.0,
           py::arg("truncate") = 0.0, py::arg("dies") = -1, py::arg("dies_after") = 0)
      .def_property_readonly("size", &InprocWorld::size)
      .def("transport", &InprocWorld::transport, py::arg("rank"), py::arg("channel"));
}

}  // namespace ronde
