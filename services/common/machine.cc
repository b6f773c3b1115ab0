#include "services/common/machine.h"

#include <unistd.h>

#include <cstdint>
#include <fstream>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "services/common/figures.h"
#include "services/common/parallel.h"

namespace plumbline {
namespace {

// The value of the first line of `path` that begins with `key`; empty when there is none.
std::string ValueOf(const char* path, absl::string_view key, absl::string_view separator) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    if (!absl::StartsWith(line, key)) continue;
    const size_t at = line.find(separator.data(), 0, separator.size());
    if (at == std::string::npos) continue;
    absl::string_view value = absl::string_view(line).substr(at + separator.size());
    value = absl::StripAsciiWhitespace(value);
    absl::ConsumePrefix(&value, "\"");
    absl::ConsumeSuffix(&value, "\"");
    return std::string(value);
  }
  return "";
}

}  // namespace

std::string DescribeMachine() {
  std::vector<std::string> parts;
  const std::string processor = ValueOf("/proc/cpuinfo", "model name", ":");
  if (!processor.empty()) parts.push_back(processor);
  const int cores = AvailableCores();
  parts.push_back(CountText(cores, "core"));
  const int64_t pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGE_SIZE);
  if (pages > 0 && page > 0) {
    parts.push_back(absl::StrCat((pages * page + (int64_t{1} << 29)) >> 30, " GiB"));
  }
  const std::string system = ValueOf("/etc/os-release", "PRETTY_NAME=", "=");
  if (!system.empty()) parts.push_back(system);
  return absl::StrJoin(parts, ", ");
}

}  // namespace plumbline
