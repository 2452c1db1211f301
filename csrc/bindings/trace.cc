// The flight record, the timeline and the counters, as Python sees them.

#include <pybind11/stl.h>

#include <array>
#include <memory>
#include <string>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "bindings/gil.h"
#include "trace/counters.h"
#include "trace/flight_reader.h"
#include "trace/flight_record.h"
#include "trace/timeline.h"

namespace py = pybind11;
using namespace py::literals;

namespace ronde {
namespace {

constexpr std::array kStates = {"none", "submitted", "begun", "moving", "done", "failed"};

py::str state_of(const Recorded& call) {
  const auto number = static_cast<std::size_t>(call.state);
  return number < kStates.size() ? kStates[number] : "none";
}

}  // namespace

void bind_trace(py::module_& module) {
  py::list table;
  for (const auto& [counter, name, unit, meaning] : counter_table())
    table.append(py::make_tuple(name, unit, meaning));
  module.attr("COUNTERS") = py::tuple(table);

  py::class_<Recorded>(module, "Recorded", "A call in a flight record.")
      .def_property_readonly("state", &state_of)
      .def_readonly("number", &Recorded::number)
      .def_readonly("sequence", &Recorded::sequence)
      .def_readonly("bytes", &Recorded::bytes)
      .def_readonly("submitted", &Recorded::submitted)
      .def_readonly("began", &Recorded::began)
      .def_readonly("ended", &Recorded::ended)
      .def_readonly("peer", &Recorded::peer)
      .def_property_readonly("what", [](const Recorded& self) { return to_python(self.what); })
      .def_property_readonly("route", [](const Recorded& self) { return to_python(self.route); })
      .def_property_readonly("site", [](const Recorded& self) { return to_python(self.site); });

  py::class_<RecordedLane>(module, "RecordedLane", "The calls of a lane in a flight record.")
      .def_readonly("set", &RecordedLane::set)
      .def_readonly("lane", &RecordedLane::lane)
      .def_readonly("open", &RecordedLane::open)
      .def_readonly("calls", &RecordedLane::calls)
      .def_readonly("counts", &RecordedLane::counts);

  py::class_<FlightReader>(module, "FlightReader", "The flight record of a process.")
      .def(py::init<const std::string&>(), "path"_a)
      .def_property_readonly("process", &FlightReader::process)
      .def_property_readonly("rank", &FlightReader::rank)
      .def_property_readonly("size", &FlightReader::size)
      .def_property_readonly("local_size", &FlightReader::local_size)
      .def_property_readonly("job", [](const FlightReader& self) { return to_python(self.job()); })
      .def_property_readonly("host",
                             [](const FlightReader& self) { return to_python(self.host()); })
      .def_property_readonly("phase",
                             [](const FlightReader& self) { return to_python(self.phase()); })
      .def("lanes", &FlightReader::lanes)
      .def("claim", &FlightReader::claim, "seconds"_a);

  py::class_<Timeline>(module, "Timeline", "Spans of this rank, in a file.")
      .def_property_readonly("on", &Timeline::on)
      .def("start", &Timeline::start, "file"_a, "rank"_a, "host"_a, "offset"_a,
           py::call_guard<WithoutGil>())
      .def("stop", &Timeline::stop, py::call_guard<WithoutGil>());

  py::class_<FlightRecord, std::shared_ptr<FlightRecord>>(module, "FlightRecord",
                                                          "What this rank does and has done.")
      .def_property_readonly("path", &FlightRecord::path)
      .def_property_readonly("timeline", &FlightRecord::timeline,
                             py::return_value_policy::reference_internal)
      .def("describe", &FlightRecord::describe, "rank"_a, "size"_a, "local_size"_a, "job"_a,
           "host"_a)
      .def("retire", &FlightRecord::retire)
      .def("enter", &FlightRecord::enter, "phase"_a)
      .def_property_readonly("counts", [](const FlightRecord& self) {
        py::list values;
        for (const auto& info : counter_table()) values.append(self.total(info.counter));
        return values;
      });
}

}  // namespace ronde
