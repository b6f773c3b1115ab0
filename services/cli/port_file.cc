#include "services/cli/port_file.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "services/common/files.h"
#include "services/common/status_macros.h"

namespace plumbline {
namespace {

constexpr int kShownLines = 6;
constexpr char kBadInput[] = "exit code 2";
constexpr char kStartLine[] = " starts, config digest ";  // services/rpc/real_main.cc

absl::StatusOr<BoundPorts> ReadPorts(const std::string& path) {
  PLUMB_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  BoundPorts ports;
  for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    const std::vector<std::string> words = absl::StrSplit(line, ' ');
    int port = 0;
    if (words.size() != 2 || !absl::SimpleAtoi(words[1], &port)) continue;
    (words[0] == "grpc" ? ports.grpc : ports.metrics) = port;
  }
  if (ports.grpc == 0) return absl::UnavailableError("no port yet");
  return ports;
}

}  // namespace

std::string LastLines(const std::string& path, int count) {
  const absl::StatusOr<std::string> text = ReadFile(path);
  if (!text.ok()) return "";
  std::vector<absl::string_view> lines = absl::StrSplit(*text, '\n', absl::SkipEmpty());
  // Logs are appended to: what an earlier process wrote is not about this one.
  const auto start = std::find_if(lines.rbegin(), lines.rend(), [](absl::string_view line) {
    return absl::StrContains(line, kStartLine);
  });
  if (start != lines.rend() && start != lines.rbegin()) lines.erase(lines.begin(), start.base());
  std::string tail;
  const size_t first = lines.size() > static_cast<size_t>(count) ? lines.size() - count : 0;
  for (size_t i = first; i < lines.size(); ++i) absl::StrAppend(&tail, "\n  ", lines[i]);
  return tail;
}

absl::StatusOr<BoundPorts> AwaitPortFile(const std::string& path, ChildProcess& child,
                                         const std::string& who, const std::string& log_path,
                                         absl::Duration timeout) {
  const absl::Time until = absl::Now() + timeout;
  while (true) {
    absl::StatusOr<BoundPorts> ports = ReadPorts(path);
    if (ports.ok()) return ports;
    if (const std::optional<std::string> ended = child.Ended()) {
      const std::string message =
          absl::StrCat(who, " did not start (", *ended, "); its log ", log_path,
                       " ends with:", LastLines(log_path, kShownLines));
      // The services end with 2 where what they were given is at fault, as plumb itself does.
      return *ended == kBadInput ? absl::InvalidArgumentError(message)
                                 : absl::UnavailableError(message);
    }
    if (absl::Now() > until) {
      return absl::UnavailableError(
          absl::StrCat(who, " did not serve within ", absl::FormatDuration(timeout), "; its log ",
                       log_path, " ends with:", LastLines(log_path, kShownLines)));
    }
    absl::SleepFor(absl::Milliseconds(20));
  }
}

}  // namespace plumbline
