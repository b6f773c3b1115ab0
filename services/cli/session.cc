#include "services/cli/session.h"

#include <cstdio>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "services/cli/last_cluster.h"
#include "services/common/files.h"
#include "services/common/status_macros.h"

namespace plumbline {
namespace {

constexpr uint32_t kCallTimeoutMs = 60000;
constexpr absl::Duration kConnectPatience = absl::Seconds(10);

absl::StatusOr<v1::ClusterConfig> StandaloneConfig(const SessionFlags& flags) {
  std::vector<std::string> roots;
  for (const std::string& root : flags.model_roots) {
    roots.push_back(AbsolutePath(root));
  }
  v1::ClusterConfig config = DefaultClusterConfig(flags.data_dir, roots);
  v1::WorkerConfig* worker = config.mutable_workers(0);
  if (roots.empty()) {
    PLUMB_ASSIGN_OR_RETURN(*worker, LastWorker(flags.data_dir));
  }
  if (!flags.dtype.empty()) worker->set_dtype(flags.dtype);
  if (!flags.device.empty()) worker->set_device(flags.device);
  worker->set_threads(static_cast<uint32_t>(flags.threads));
  for (int w = 1; w < flags.workers; ++w) {
    v1::WorkerConfig* added = config.add_workers();
    *added = config.workers(0);
    if (added->device() == "cuda") added->set_device(absl::StrCat("cuda:", w));  // one GPU each
  }
  return config;
}

}  // namespace

CLI::Validator DeviceName() {
  return CLI::Validator(
      [](const std::string& text) {
        absl::string_view left = text;
        uint32_t number = 0;
        if (left == "cpu" || left == "cuda") return std::string();
        if (absl::ConsumePrefix(&left, "cuda:") && absl::SimpleAtoi(left, &number)) {
          return std::string();
        }
        return absl::StrCat("device must be cpu, cuda or cuda:N, got '", text, "'");
      },
      "DEVICE");
}

void SessionFlags::Register(CLI::App* app) {
  app->add_option("--coordinator", coordinator,
                  "HOST:PORT of a running coordinator (default: everything on this machine)");
  app->add_option("--data", data_dir, "folder for results when there is no --coordinator")
      ->capture_default_str();
  app->add_option("--tls-ca", tls_ca, "CA file of the coordinator's certificate");
  app->add_option("--tls-cert", tls_certificate, "this client's certificate file");
  app->add_option("--tls-key", tls_key, "this client's key file");
  app->add_flag("--insecure", insecure, "allow plain text to a coordinator beyond loopback");
}

void SessionFlags::RegisterWorkerFlags(CLI::App* app) {
  app->add_option("--dtype", dtype, "compute dtype of the local worker")
      ->check(CLI::IsMember({"fp32", "bf16"}));
  app->add_option("--device", device, "cpu, cuda or cuda:N; with --workers, cuda is one GPU each")
      ->check(DeviceName());
  app->add_option("--threads", threads, "threads of each local worker (0 = all cores)")
      ->check(CLI::Range(0, 1024));
  app->add_option("--workers", workers, "local workers to start")->check(CLI::Range(1, 64));
}

absl::StatusOr<std::unique_ptr<Session>> Session::Open(const SessionFlags& flags, Need need) {
  std::unique_ptr<Session> session(new Session);
  session->data_dir_ = flags.data_dir;
  v1::Endpoint endpoint;
  endpoint.set_timeout_ms(kCallTimeoutMs);
  if (!flags.coordinator.empty()) {
    if (flags.has_worker_flags()) {
      return absl::InvalidArgumentError(
          "--dtype, --device, --threads and --workers are for workers that this command starts; "
          "those of --coordinator are set where it runs: leave them out");
    }
    endpoint.set_address(flags.coordinator);
    endpoint.set_insecure(flags.insecure);
    if (!flags.tls_ca.empty() || !flags.tls_certificate.empty()) {
      endpoint.mutable_tls()->set_client_ca_file(flags.tls_ca);
      endpoint.mutable_tls()->set_certificate_file(flags.tls_certificate);
      endpoint.mutable_tls()->set_key_file(flags.tls_key);
    }
    session->reach_ = absl::StrCat("--coordinator ", flags.coordinator);
  } else {
    session->reach_ = absl::StrCat("--data ", flags.data_dir);
    std::string running = RunningCoordinator(flags.data_dir);
    if (!running.empty() && flags.has_worker_flags()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "a cluster runs on '", flags.data_dir,
          "' already, and --dtype, --device, --threads and --workers are for workers that this "
          "command starts: leave them out, or name another folder with --data"));
    }
    if (running.empty()) {
      // `watch` and `resume` run what is there; only a study command brings a model along.
      const bool reads = need != Need::kRun || flags.model_roots.empty();
      if (reads && !FileExists(JoinPath(flags.data_dir, "plumbline.sqlite"))) {
        return absl::NotFoundError(
            absl::StrCat("no results in '", flags.data_dir,
                         "': name the folder with --data, or a coordinator with --coordinator"));
      }
      PLUMB_ASSIGN_OR_RETURN(const v1::ClusterConfig config, StandaloneConfig(flags));
      if (need == Need::kRun && config.workers(0).model_roots().empty()) {
        return absl::InvalidArgumentError(
            "no model: give --model DIR (a bundle made by `plumb models import`)");
      }
      LocalClusterOptions options;
      options.only_coordinator = need == Need::kRead;
      options.without_workers = need == Need::kPurge;
      options.notify = [](const std::string& line) { fprintf(stderr, "\n%s\n", line.c_str()); };
      absl::StatusOr<std::unique_ptr<LocalCluster>> started = LocalCluster::Start(config, options);
      if (started.ok()) {
        session->cluster_ = *std::move(started);
        running = session->cluster_->coordinator_address();
      } else {
        // One that came up meanwhile serves as well.
        running = RunningCoordinator(flags.data_dir);
        if (!absl::IsFailedPrecondition(started.status()) || running.empty()) {
          return started.status();
        }
      }
      if (need == Need::kRun && session->cluster_ != nullptr) {
        PLUMB_RETURN_IF_ERROR(RememberCluster(config));
      }
    }
    endpoint.set_address(running);
  }
  PLUMB_ASSIGN_OR_RETURN(session->experiments_,
                         ExperimentsClient::Create(endpoint, WaitForReady::kYes));
  // Later calls wait for a coordinator that is being started again; one that never was must not.
  if (!session->experiments_->channel().WaitForConnected(
          absl::ToChronoTime(absl::Now() + kConnectPatience))) {
    return absl::UnavailableError(
        absl::StrCat("no coordinator answers at ", endpoint.address(), " within ",
                     absl::FormatDuration(kConnectPatience),
                     ": is it running there, and with the same TLS settings?"));
  }
  return session;
}

}  // namespace plumbline
