// The flight record of some process of this machine, as others read it. It stays readable when the
// process has ended.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "trace/record.h"

namespace ronde {

/// A copy of a record.
struct Recorded {
  CallState state;
  std::uint64_t number, sequence, bytes;
  double submitted, began, ended;  // seconds of CLOCK_MONOTONIC, 0 for none
  int peer;
  std::string what, route, site;
};

struct RecordedLane {
  int set, lane;
  bool open;
  std::vector<Recorded> calls;        // by number
  std::vector<std::uint64_t> counts;  // by Counter
};

class FlightReader {
 public:
  /// Throws UnavailableError if the file cannot be opened, or is no flight record of this version.
  explicit FlightReader(const std::string& path);
  ~FlightReader();
  FlightReader(const FlightReader&) = delete;
  FlightReader& operator=(const FlightReader&) = delete;

  int process() const { return header().process; }
  int rank() const { return header().rank; }
  int size() const { return header().size; }
  int local_size() const { return header().local_size; }
  std::string job() const { return text_of(header().job); }
  std::string host() const { return text_of(header().host); }
  std::string phase() const { return text_of(header().phase); }
  std::vector<RecordedLane> lanes() const;

  /// Whether nobody has done so in the last seconds. Several processes that would report the same
  /// thing ask at the same record.
  bool claim(double seconds);

 private:
  template <std::size_t N>
  static std::string text_of(const char (&field)[N]) {
    return {field, strnlen(field, N)};
  }
  static bool copy(const Record& record, Recorded& copy);
  Header& header() const { return *reinterpret_cast<Header*>(data_); }

  std::byte* data_ = nullptr;
};

}  // namespace ronde
