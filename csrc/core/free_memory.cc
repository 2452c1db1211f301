#include "core/free_memory.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <string_view>

namespace ronde {
namespace {

constexpr std::size_t kUnlimited = std::numeric_limits<std::size_t>::max();
constexpr std::size_t kMostSpared = 1 << 30;

/// The names of one version's files and fields.
struct Version {
  const char* folder;
  const char* limit;
  const char* used;
  std::string_view inactive_files, active_files;  // of the group and those below it
};

constexpr Version kFirst{"/sys/fs/cgroup/memory", "/memory.limit_in_bytes",
                         "/memory.usage_in_bytes", "total_inactive_file ", "total_active_file "};
constexpr Version kSecond{"/sys/fs/cgroup", "/memory.max", "/memory.current", "inactive_file ",
                          "active_file "};

/// Empty if there is no such file.
std::string content(const std::string& path) {
  std::string text;
  if (std::FILE* file = std::fopen(path.c_str(), "re")) {
    char part[4096];
    while (const auto bytes = std::fread(part, 1, sizeof part, file)) text.append(part, bytes);
    std::fclose(file);
  }
  return text;
}

/// The number at the beginning of a text, or `otherwise`.
std::size_t number(const std::string& text, std::size_t otherwise) {
  char* end = nullptr;
  const auto value = std::strtoull(text.c_str(), &end, 10);
  return end == text.c_str() ? otherwise : value;
}

/// The number behind a name that begins a line, or `otherwise`.
std::size_t field(const std::string& text, std::string_view name, std::size_t otherwise) {
  for (std::size_t at = 0; (at = text.find(name, at)) != text.npos; at += name.size()) {
    if (at == 0 || text[at - 1] == '\n') return number(text.substr(at + name.size()), otherwise);
  }
  return otherwise;
}

/// Up to near the limit: other memory is taken meanwhile, in this process too.
std::size_t free_below(std::size_t limit, std::size_t used) {
  const auto usable = limit - std::min(limit / 16, kMostSpared);
  return usable - std::min(usable, used);
}

std::size_t free_in(const std::string& group, const Version& version) {
  const auto limit = number(content(group + version.limit), kUnlimited);
  if (limit == kUnlimited) return kUnlimited;
  const auto statistics = content(group + "/memory.stat");
  const auto files =
      field(statistics, version.inactive_files, 0) + field(statistics, version.active_files, 0);
  const auto used = number(content(group + version.used), 0);
  return free_below(limit, used - std::min(used, files));
}

/// Of a group and all above it. Inside a container the path may be one that only the host can see;
/// then the uppermost folder is the container's group.
std::size_t free_in_all(const std::string& root, std::string_view path, const Version& version) {
  std::size_t least = kUnlimited;
  while (true) {
    least = std::min(least, free_in(root + version.folder + std::string(path), version));
    const auto slash = path.rfind('/');
    if (slash == path.npos) return least;
    path = path.substr(0, slash);
  }
}

}  // namespace

std::size_t free_memory(const std::string& root) {
  const auto machine = content(root + "/proc/meminfo");
  const auto total = 1024 * field(machine, "MemTotal:", 0);  // given in KiB
  const auto available = 1024 * field(machine, "MemAvailable:", total / 1024);
  std::size_t least = total ? free_below(total, total - available) : kUnlimited;
  const auto groups = content(root + "/proc/self/cgroup");
  for (std::string_view rest = groups; !rest.empty();) {  // lines like 4:memory:/path and 0::/path
    const auto line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    const auto first = line.find(':'), second = line.find(':', first + 1);
    if (second == line.npos) continue;
    std::string controllers = ",";
    controllers.append(line.substr(first + 1, second - first - 1)).append(",");
    const auto path = line.substr(second + 1);
    if (controllers == ",,") least = std::min(least, free_in_all(root, path, kSecond));
    if (controllers.find(",memory,") != controllers.npos)
      least = std::min(least, free_in_all(root, path, kFirst));
  }
  return least;
}

}  // namespace ronde
