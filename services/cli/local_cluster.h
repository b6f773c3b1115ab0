// Every service as a child process on loopback, from one ClusterConfig: `plumb up`, and what the
// study commands start when no --coordinator is given. Real processes, real gRPC, real store.
//
//   PLUMB_ASSIGN_OR_RETURN(auto cluster, LocalCluster::Start(config, {}));
//   ... cluster->coordinator_address() ...
//   cluster->Stop();
//
// A service that ends by itself is started again at its old address, a bounded number of times.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "plumbline/v1/config.pb.h"
#include "services/cli/child_process.h"

namespace plumbline {

struct LocalClusterOptions {
  // Lines for the user: "worker 0 ended by signal 9 (Killed); started again". May be null.
  std::function<void(const std::string&)> notify;
  bool only_coordinator = false;  // to read what is stored
  bool without_workers = false;   // to change what is stored, captures included
  absl::Duration start_timeout = absl::Seconds(300);
  // How long to wait for another plumb that has the data folder for a moment: one that reads, or
  // one whose cluster just starts or stops.
  absl::Duration lock_patience = absl::Seconds(60);
  int max_restarts = 5;  // of one service
};

struct ServiceAddress {
  std::string name;  // "coordinator", "worker-0", ...
  std::string address;
  std::string metrics_address;
  pid_t pid = 0;
};

class LocalCluster {
 public:
  // config.data_dir is made (0700) with run/ (configs, port files) and logs/. Unavailable names the
  // service that did not come up and its log; FailedPrecondition when another cluster runs on the
  // same data folder, with its address: RunningCoordinator then gives it. A cluster with
  // only_coordinator or without_workers lasts a moment; others wait for its end and never use it.
  static absl::StatusOr<std::unique_ptr<LocalCluster>> Start(const v1::ClusterConfig& config,
                                                             LocalClusterOptions options);
  ~LocalCluster();

  // Workers first, so that they hand back their leases; then the rest. Idempotent.
  void Stop();

  const std::string& coordinator_address() const { return coordinator_address_; }
  std::vector<ServiceAddress> Services() const;
  // OK while every service runs or is being started again.
  absl::Status Healthy() const;

 private:
  struct Service;
  LocalCluster(v1::ClusterConfig config, LocalClusterOptions options);
  absl::Status TakeLock();
  bool ForAMoment() const { return options_.only_coordinator || options_.without_workers; }
  absl::Status StartAll();
  absl::Status StartService(const std::string& name, const std::string& binary,
                            google::protobuf::Message* config, v1::ServerConfig* server);
  absl::Status Launch(Service& service);
  absl::Status AwaitPorts(Service& service);
  void Supervise();
  void RestartIfEnded(Service& service);
  void StopAll(bool (*chosen)(const std::string& name));
  void Notify(const std::string& line) const;

  v1::ClusterConfig config_;
  LocalClusterOptions options_;
  int lock_fd_ = -1;
  std::string coordinator_address_;
  mutable std::mutex mutex_;
  std::condition_variable stop_asked_;
  std::vector<std::unique_ptr<Service>> services_;  // guarded by mutex_ once started
  absl::Status health_;                             // guarded by mutex_
  bool stopping_ = false;                           // guarded by mutex_
  std::thread supervisor_;
};

// The config's text with every default of a local cluster filled in below `data_dir`: loopback,
// SQLite, one worker on all cores, model and prompt roots.
v1::ClusterConfig DefaultClusterConfig(const std::string& data_dir,
                                       const std::vector<std::string>& model_roots);

// Address of the cluster that runs on this data folder now, or empty.
std::string RunningCoordinator(const std::string& data_dir);

}  // namespace plumbline
