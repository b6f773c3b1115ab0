// Waits until a child process serves.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/cli/child_process.h"

namespace plumbline {

struct BoundPorts {
  int grpc = 0;
  int metrics = 0;  // 0 = none
};

// Polls the server's port_file ("grpc PORT", "metrics PORT"). Unavailable when the child ends or
// the time is over; the message names `who` and carries the last lines of its log.
absl::StatusOr<BoundPorts> AwaitPortFile(const std::string& path, ChildProcess& child,
                                         const std::string& who, const std::string& log_path,
                                         absl::Duration timeout);

// "\n  line\n  line": the last `count` lines of a log since its process started, empty when it
// cannot be read.
std::string LastLines(const std::string& path, int count);

}  // namespace plumbline
