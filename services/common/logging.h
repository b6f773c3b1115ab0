// Structured one-line logs on standard error through spdlog. Prompts and answers are never
// arguments of a log call: log ids and digests.
#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "spdlog/spdlog.h"

namespace plumbline {

// level: trace, debug, info, warn, error or off; anything else counts as info.
// `process` names the service in every line.
void InitLogging(absl::string_view process, absl::string_view level = "info");

}  // namespace plumbline
