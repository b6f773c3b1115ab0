// How a command reaches a coordinator: an address given with --coordinator, the cluster that runs
// on the data folder, or one that this command starts for itself and stops at its end.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/statusor.h"
#include "plumbline/v1/experiments.grpc.pb.h"
#include "services/cli/local_cluster.h"
#include "services/rpc/client.h"

namespace plumbline {

struct SessionFlags {
  std::string coordinator;  // host:port; empty = this machine
  std::string data_dir = "plumbline-data";
  std::string tls_ca, tls_certificate, tls_key;
  bool insecure = false;
  std::vector<std::string> model_roots;  // standalone: set by the command from --model
  std::string dtype, device;
  int threads = 0;
  int workers = 1;

  void Register(CLI::App* app);
  void RegisterWorkerFlags(CLI::App* app);
  bool has_worker_flags() const {
    return !dtype.empty() || !device.empty() || threads != 0 || workers != 1;
  }
};

// Takes cpu, cuda and cuda:N. Whether there is such a GPU, the worker says.
CLI::Validator DeviceName();

using ExperimentsClient = RpcClient<v1::Experiments>;

class Session {
 public:
  // What a standalone session starts when nothing runs on the data folder.
  enum class Need { kRead, kPurge, kRun };

  static absl::StatusOr<std::unique_ptr<Session>> Open(const SessionFlags& flags, Need need);

  ExperimentsClient& experiments() { return *experiments_; }
  // Null when the coordinator is someone else's.
  LocalCluster* cluster() { return cluster_.get(); }
  // "--coordinator HOST:PORT" or "--data DIR": what the next command needs to reach the same
  // results.
  std::string reach() const { return reach_; }
  const std::string& data_dir() const { return data_dir_; }

 private:
  Session() = default;
  std::unique_ptr<LocalCluster> cluster_;
  std::unique_ptr<ExperimentsClient> experiments_;
  std::string reach_, data_dir_;
};

}  // namespace plumbline
