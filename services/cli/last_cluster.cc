#include "services/cli/last_cluster.h"

#include <algorithm>

#include "services/common/files.h"
#include "services/common/status_macros.h"
#include "services/rpc/config.h"

namespace plumbline {
namespace {

std::string ClusterFile(const std::string& data_dir) { return JoinPath(data_dir, "cluster.txtpb"); }

bool ServesModels(const v1::ClusterConfig& config) {
  return std::any_of(config.workers().begin(), config.workers().end(),
                     [](const v1::WorkerConfig& worker) { return !worker.model_roots().empty(); });
}

}  // namespace

absl::Status RememberCluster(const v1::ClusterConfig& config) {
  if (!ServesModels(config)) return absl::OkStatus();
  v1::ClusterConfig remembered = config;
  for (v1::WorkerConfig& worker : *remembered.mutable_workers()) {
    for (std::string& root : *worker.mutable_model_roots()) {
      root = AbsolutePath(root);
    }
  }
  return WriteFileAtomically(ClusterFile(config.data_dir()), ConfigText(remembered), 0600);
}

absl::StatusOr<v1::WorkerConfig> LastWorker(const std::string& data_dir) {
  v1::WorkerConfig last;
  if (!FileExists(ClusterFile(data_dir))) return last;
  v1::ClusterConfig remembered;
  PLUMB_RETURN_IF_ERROR(LoadConfigFile(ClusterFile(data_dir), &remembered));
  for (const v1::WorkerConfig& worker : remembered.workers()) {
    for (const std::string& root : worker.model_roots()) {
      const auto& roots = last.model_roots();
      if (std::find(roots.begin(), roots.end(), root) == roots.end()) last.add_model_roots(root);
    }
  }
  if (remembered.workers_size() > 0) {
    last.set_dtype(remembered.workers(0).dtype());
    last.set_device(remembered.workers(0).device());
  }
  return last;
}

}  // namespace plumbline
