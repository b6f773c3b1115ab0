#include "services/cli/local_cluster.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/cli/install_layout.h"
#include "services/cli/port_file.h"
#include "services/common/files.h"
#include "services/common/status_macros.h"
#include "services/rpc/config.h"

namespace plumbline {
namespace {

constexpr absl::Duration kStopPatience = absl::Seconds(25);
constexpr std::chrono::milliseconds kSupervisePeriod{200};
constexpr char kLoopbackAnyPort[] = "127.0.0.1:0";
constexpr char kAddressFile[] = "coordinator.address";
constexpr absl::Duration kLockPoll = absl::Milliseconds(50);
constexpr absl::Duration kQuietWait = absl::Seconds(1);  // a wait that nobody needs to hear of

std::string RunFile(const v1::ClusterConfig& config, absl::string_view name) {
  return JoinPath(config.data_dir(), absl::StrCat("run/", name));
}

// An address that the config gives stays: the peer may be elsewhere, or behind a relay.
void Fill(const std::string& address, v1::Endpoint* peer) {
  if (peer->address().empty()) peer->set_address(address);
}

}  // namespace

struct LocalCluster::Service {
  std::string name;
  std::string binary;
  std::string config_path, port_path, log_path;
  std::unique_ptr<google::protobuf::Message> config;
  v1::ServerConfig* server = nullptr;  // inside config
  std::unique_ptr<ChildProcess> process;
  std::string address, metrics_address;
  int restarts = 0;
};

v1::ClusterConfig DefaultClusterConfig(const std::string& data_dir,
                                       const std::vector<std::string>& model_roots) {
  v1::ClusterConfig config;
  config.set_data_dir(data_dir);
  config.mutable_coordinator()->mutable_store()->set_sqlite_file(
      JoinPath(data_dir, "plumbline.sqlite"));
  config.mutable_coordinator()->set_prompts_root(JoinPath(data_dir, "prompts"));
  config.mutable_capture()->set_data_dir(JoinPath(data_dir, "captures"));
  config.mutable_judge()->set_cache_file(JoinPath(data_dir, "judge.sqlite"));
  v1::WorkerConfig* worker = config.add_workers();
  for (const std::string& root : model_roots) worker->add_model_roots(root);
  return config;
}

std::string RunningCoordinator(const std::string& data_dir) {
  // The running cluster holds a lock on this file and has written its address into it.
  const std::string path = JoinPath(data_dir, "run/cluster.lock");
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return "";
  const bool locked = flock(fd, LOCK_SH | LOCK_NB) != 0;
  close(fd);
  if (!locked) return "";
  const absl::StatusOr<std::string> address =
      ReadFile(JoinPath(data_dir, absl::StrCat("run/", kAddressFile)));
  return address.ok() ? *address : "";
}

LocalCluster::LocalCluster(v1::ClusterConfig config, LocalClusterOptions options)
    : config_(std::move(config)), options_(std::move(options)) {}

LocalCluster::~LocalCluster() {
  Stop();
  if (lock_fd_ >= 0) close(lock_fd_);
}

absl::StatusOr<std::unique_ptr<LocalCluster>> LocalCluster::Start(const v1::ClusterConfig& config,
                                                                  LocalClusterOptions options) {
  if (config.data_dir().empty()) {
    return absl::InvalidArgumentError("data_dir is empty: name the folder for results and logs");
  }
  for (const char* folder : {"", "run", "logs", "prompts", "captures"}) {
    PLUMB_RETURN_IF_ERROR(MakeDirectories(JoinPath(config.data_dir(), folder), 0700));
  }
  std::unique_ptr<LocalCluster> cluster(new LocalCluster(config, std::move(options)));
  absl::Status started = cluster->StartAll();
  if (!started.ok()) {
    cluster->Stop();
    return started;
  }
  cluster->supervisor_ = std::thread([raw = cluster.get()] { raw->Supervise(); });
  return cluster;
}

// Held until this object goes or plumb ends, however it ends.
absl::Status LocalCluster::TakeLock() {
  const std::string lock_path = RunFile(config_, "cluster.lock");
  const int fd = open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot open the lock ", lock_path, ": ", strerror(errno)));
  }
  const absl::Time begun = absl::Now();
  bool told = false;
  while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    const std::string running = RunningCoordinator(config_.data_dir());
    const absl::Duration waited = absl::Now() - begun;
    if (!running.empty() || waited > options_.lock_patience) {
      close(fd);
      return absl::FailedPreconditionError(
          absl::StrCat("a cluster runs on ", config_.data_dir(), " already",
                       running.empty() ? "" : absl::StrCat(" (--coordinator ", running, ")"),
                       ": use it, stop it, or name another --data folder"));
    }
    if (!told && waited > kQuietWait) {
      Notify(absl::StrCat("another plumb uses ", config_.data_dir(), "; waiting for it ..."));
      told = true;
    }
    absl::SleepFor(kLockPoll);
  }
  lock_fd_ = fd;
  // Of a cluster that ended without cleaning up; whoever comes next must not call there.
  unlink(RunFile(config_, kAddressFile).c_str());
  return absl::OkStatus();
}

absl::Status LocalCluster::StartAll() {
  PLUMB_RETURN_IF_ERROR(TakeLock());
  v1::CoordinatorConfig coordinator = config_.coordinator();
  if (!options_.only_coordinator) {
    v1::CaptureConfig capture = config_.capture();
    PLUMB_RETURN_IF_ERROR(
        StartService("capture", "plumb-capture", &capture, capture.mutable_server()));
    const std::string capture_address = services_.back()->address;
    v1::JudgeConfig judge = config_.judge();
    PLUMB_RETURN_IF_ERROR(StartService("judge", "plumb-judge", &judge, judge.mutable_server()));
    Fill(services_.back()->address, coordinator.mutable_judge());
    v1::PcrConfig pcr = config_.pcr();
    PLUMB_RETURN_IF_ERROR(StartService("pcr", "plumb-pcr", &pcr, pcr.mutable_server()));
    Fill(services_.back()->address, coordinator.mutable_pcr());
    v1::QuantsimConfig quantsim = config_.quantsim();
    Fill(capture_address, quantsim.mutable_capture());
    PLUMB_RETURN_IF_ERROR(
        StartService("quantsim", "plumb-quantsim", &quantsim, quantsim.mutable_server()));
    Fill(services_.back()->address, coordinator.mutable_quantsim());
    Fill(capture_address, coordinator.mutable_capture());
  }
  PLUMB_RETURN_IF_ERROR(
      StartService("coordinator", "plumb-coordinator", &coordinator, coordinator.mutable_server()));
  coordinator_address_ = services_.back()->address;
  if (ForAMoment()) return absl::OkStatus();
  PLUMB_RETURN_IF_ERROR(
      WriteFileAtomically(RunFile(config_, kAddressFile), coordinator_address_, 0600));
  for (int w = 0; w < config_.workers_size(); ++w) {
    v1::WorkerConfig worker = config_.workers(w);
    Fill(coordinator_address_, worker.mutable_coordinator());
    Fill(coordinator.capture().address(), worker.mutable_capture());
    if (worker.worker_id().empty()) worker.set_worker_id(absl::StrCat("worker-", w));
    PLUMB_RETURN_IF_ERROR(
        StartService(absl::StrCat("worker-", w), "plumb-worker", &worker, worker.mutable_server()));
  }
  return absl::OkStatus();
}

absl::Status LocalCluster::StartService(const std::string& name, const std::string& binary,
                                        google::protobuf::Message* config,
                                        v1::ServerConfig* server) {
  if (server->listen().empty()) server->set_listen(kLoopbackAnyPort);
  if (server->metrics_listen().empty()) server->set_metrics_listen(kLoopbackAnyPort);
  auto service = std::make_unique<Service>();
  service->name = name;
  PLUMB_ASSIGN_OR_RETURN(service->binary, FindBinary(binary));
  service->config_path = RunFile(config_, absl::StrCat(name, ".txtpb"));
  service->port_path = RunFile(config_, absl::StrCat(name, ".ports"));
  service->log_path = JoinPath(config_.data_dir(), absl::StrCat("logs/", name, ".log"));
  server->set_port_file(service->port_path);
  service->config.reset(config->New());
  service->config->CopyFrom(*config);
  const auto* field = service->config->GetDescriptor()->FindFieldByName("server");
  service->server = static_cast<v1::ServerConfig*>(
      service->config->GetReflection()->MutableMessage(service->config.get(), field));
  services_.push_back(std::move(service));
  Service& started = *services_.back();
  PLUMB_RETURN_IF_ERROR(Launch(started));
  return AwaitPorts(started);
}

absl::Status LocalCluster::Launch(Service& service) {
  unlink(service.port_path.c_str());
  PLUMB_RETURN_IF_ERROR(
      WriteFileAtomically(service.config_path, ConfigText(*service.config), 0600));
  PLUMB_ASSIGN_OR_RETURN(
      service.process,
      ChildProcess::Start({service.binary, "--config", service.config_path}, service.log_path));
  return absl::OkStatus();
}

absl::Status LocalCluster::AwaitPorts(Service& service) {
  PLUMB_ASSIGN_OR_RETURN(const BoundPorts ports,
                         AwaitPortFile(service.port_path, *service.process, service.name,
                                       service.log_path, options_.start_timeout));
  service.address = absl::StrCat("127.0.0.1:", ports.grpc);
  service.metrics_address = absl::StrCat("127.0.0.1:", ports.metrics);
  // A restart must come back where its peers look for it.
  service.server->set_listen(service.address);
  if (ports.metrics != 0) service.server->set_metrics_listen(service.metrics_address);
  return absl::OkStatus();
}

void LocalCluster::Supervise() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!stop_asked_.wait_for(lock, kSupervisePeriod, [this] { return stopping_; })) {
    for (auto& service : services_) RestartIfEnded(*service);
  }
}

void LocalCluster::RestartIfEnded(Service& service) {
  if (service.process == nullptr) return;
  const std::optional<std::string> ended = service.process->Ended();
  if (!ended) return;
  if (++service.restarts > options_.max_restarts) {
    health_ = absl::UnavailableError(absl::StrCat(
        service.name, " ended ", service.restarts, " times, the last by ", *ended, "; its log ",
        service.log_path, " ends with:", LastLines(service.log_path, 6)));
    service.process.reset();
    return;
  }
  const absl::Status launched = Launch(service);
  Notify(absl::StrCat(
      service.name, " ended by ", *ended,
      launched.ok() ? "; started again" : absl::StrCat("; start failed: ", launched.message())));
  if (!launched.ok()) {
    health_ = launched;
    service.process.reset();
  }
}

void LocalCluster::Notify(const std::string& line) const {
  if (options_.notify) options_.notify(line);
}

void LocalCluster::StopAll(bool (*chosen)(const std::string& name)) {
  for (auto& service : services_) {
    if (service->process != nullptr && chosen(service->name)) service->process->Signal(SIGTERM);
  }
  for (auto& service : services_) {
    if (service->process != nullptr && chosen(service->name)) service->process->Stop(kStopPatience);
  }
}

void LocalCluster::Stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (stopping_) return;
    stopping_ = true;
  }
  stop_asked_.notify_all();
  // Those who come from here on wait for the lock. A cluster that found another one on its data
  // folder leaves that one's address alone.
  if (lock_fd_ >= 0) unlink(RunFile(config_, kAddressFile).c_str());
  if (supervisor_.joinable()) supervisor_.join();
  // Who calls stops before whom it calls; those that do not wait for each other stop together.
  StopAll([](const std::string& name) { return name.rfind("worker", 0) == 0; });
  StopAll([](const std::string& name) { return name == "coordinator"; });
  StopAll([](const std::string&) { return true; });
}

std::vector<ServiceAddress> LocalCluster::Services() const {
  std::lock_guard<std::mutex> lock(mutex_);
  std::vector<ServiceAddress> addresses;
  for (const auto& service : services_) {
    addresses.push_back({service->name, service->address, service->metrics_address,
                         service->process == nullptr ? 0 : service->process->pid()});
  }
  return addresses;
}

absl::Status LocalCluster::Healthy() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return health_;
}

}  // namespace plumbline
