// The worker process: models, engine, direct generation, and the lease loop when it has a
// coordinator.
#pragma once

#include "absl/status/status.h"
#include "plumbline/v1/config.pb.h"
#include "services/rpc/real_main.h"

namespace plumbline {

// Serves until the shutdown signal; then finishes or returns its leases within
// server.drain_seconds. InvalidArgument names the config field and value.
absl::Status RunWorker(const v1::WorkerConfig& config, Process& process);

}  // namespace plumbline
