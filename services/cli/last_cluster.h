// What the last cluster on a data folder served, so that `plumb watch ID` can go on after it
// without being told again where the models lie. It stands in DATA/cluster.txtpb.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "plumbline/v1/config.pb.h"

namespace plumbline {

// Writes the config down with absolute model roots. One without model roots serves nothing and
// leaves what is there.
absl::Status RememberCluster(const v1::ClusterConfig& config);

// Model roots of all its workers, dtype and device of the first; empty when nothing is remembered.
// An unreadable file is an error that names it.
absl::StatusOr<v1::WorkerConfig> LastWorker(const std::string& data_dir);

}  // namespace plumbline
