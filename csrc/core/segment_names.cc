#include "core/segment_names.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace ronde {

std::vector<std::string> segment_names(pid_t process) {
  std::vector<std::string> found;
  std::FILE* maps = std::fopen(("/proc/" + std::to_string(process) + "/maps").c_str(), "re");
  if (!maps) return found;
  char* line = nullptr;
  std::size_t room = 0;
  for (ssize_t length; (length = getline(&line, &room, maps)) > 0;) {
    const std::string_view text(line, static_cast<std::size_t>(length - 1));  // no end of line
    const auto begin = text.find('/');
    if (begin == text.npos || text.ends_with(" (deleted)")) continue;
    const auto path = text.substr(begin);
    if (std::any_of(kSegmentNames.begin(), kSegmentNames.end(),
                    [&](auto name) { return path.starts_with(name); }))
      found.emplace_back(path);
  }
  std::free(line);
  std::fclose(maps);
  std::sort(found.begin(), found.end());
  found.erase(std::unique(found.begin(), found.end()), found.end());
  return found;
}

void remove_segment_names() {
  for (const auto& path : segment_names(getpid())) unlink(path.c_str());  // others remove them too
}

}  // namespace ronde
