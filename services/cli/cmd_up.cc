#include <cstdio>
#include <memory>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "plumbline/v1/generation.grpc.pb.h"
#include "services/cli/commands.h"
#include "services/cli/last_cluster.h"
#include "services/cli/local_cluster.h"
#include "services/common/status_macros.h"
#include "services/rpc/client.h"
#include "services/rpc/config.h"
#include "services/rpc/shutdown_signal.h"

namespace plumbline {
namespace {

struct UpFlags {
  std::string config_file;
  std::vector<std::string> overrides, model_roots;
  std::string data_dir = "plumbline-data";
  int workers = 1;
  bool print_config = false;
};

absl::StatusOr<v1::ClusterConfig> ConfigOf(const UpFlags& flags) {
  v1::ClusterConfig config = DefaultClusterConfig(flags.data_dir, flags.model_roots);
  for (int w = 1; w < flags.workers; ++w) *config.add_workers() = config.workers(0);
  if (!flags.config_file.empty()) {
    v1::ClusterConfig given;
    PLUMB_RETURN_IF_ERROR(LoadConfigFile(flags.config_file, &given));
    if (!given.data_dir().empty()) config = DefaultClusterConfig(given.data_dir(), {});
    if (given.workers_size() > 0) config.clear_workers();
    config.MergeFrom(given);
  }
  for (const std::string& assignment : flags.overrides) {
    PLUMB_RETURN_IF_ERROR(ApplyOverride(assignment, &config));
  }
  return config;
}

// The models that can be studied here, and the bundles that cannot with the reason.
void PrintModels(const LocalCluster& cluster) {
  std::set<std::string> served, left_out;
  for (const ServiceAddress& service : cluster.Services()) {
    if (!absl::StartsWith(service.name, "worker-")) continue;
    v1::Endpoint endpoint;
    endpoint.set_address(service.address);
    // It serves already; on a busy machine the first handshake may still fail and be tried again.
    const auto client = RpcClient<v1::Generation>::Create(endpoint, WaitForReady::kYes);
    if (!client.ok()) continue;
    const auto models = (*client)->Call(&v1::Generation::Stub::ListModels, v1::ListModelsRequest());
    if (!models.ok()) {
      fprintf(stderr, "%s does not list its models: %s\n", service.name.c_str(),
              std::string(models.status().message()).c_str());
      continue;
    }
    for (const v1::ModelInfo& model : models->models()) {
      served.insert(absl::StrCat(model.name(), " (", model.model_digest().substr(0, 12), ")",
                                 model.raw_only() ? ", raw prompts only (--raw)" : ""));
    }
    left_out.insert(models->left_out().begin(), models->left_out().end());
  }
  for (const std::string& model : served) printf("model        %s\n", model.c_str());
  fflush(stdout);
  for (const std::string& line : left_out) fprintf(stderr, "left out     %s\n", line.c_str());
}

absl::Status Up(const UpFlags& flags) {
  PLUMB_ASSIGN_OR_RETURN(const v1::ClusterConfig config, ConfigOf(flags));
  if (flags.print_config) {
    printf("%s", ConfigText(config).c_str());
    return absl::OkStatus();
  }
  ShutdownSignal shutdown;
  LocalClusterOptions options;
  options.notify = [](const std::string& line) { fprintf(stderr, "%s\n", line.c_str()); };
  PLUMB_ASSIGN_OR_RETURN(const std::unique_ptr<LocalCluster> cluster,
                         LocalCluster::Start(config, options));
  PLUMB_RETURN_IF_ERROR(RememberCluster(config));
  for (const ServiceAddress& service : cluster->Services()) {
    printf("%-12s %-22s metrics http://%s/metrics  pid %d\n", service.name.c_str(),
           service.address.c_str(), service.metrics_address.c_str(), service.pid);
  }
  PrintModels(*cluster);
  printf("up; stop with Ctrl-C. Studies: plumb diagnose --coordinator %s --model NAME\n",
         cluster->coordinator_address().c_str());
  fflush(stdout);
  while (!shutdown.WaitFor(absl::Milliseconds(500))) {
    PLUMB_RETURN_IF_ERROR(cluster->Healthy());
  }
  fprintf(stderr, "stopping ...\n");
  cluster->Stop();
  return absl::OkStatus();
}

}  // namespace

void AddUpCommand(CLI::App& app, int* exit_code) {
  CLI::App* command =
      app.add_subcommand("up", "Run every service on this machine, as child processes on loopback");
  command->footer(
      "Examples:\n"
      "  plumb up --model-root models\n"
      "  plumb up --config cluster.txtpb --set workers.0.threads=2\n"
      "  plumb up --model-root models --print-config > cluster.txtpb");
  auto flags = std::make_shared<UpFlags>();
  command->add_option("--config", flags->config_file, "ClusterConfig as text proto or JSON");
  command->add_option("--set", flags->overrides, "field.path=value; may be repeated");
  command->add_option("--model-root", flags->model_roots,
                      "folder with model bundles; may be repeated");
  command->add_option("--data", flags->data_dir, "folder for results and logs")
      ->capture_default_str();
  command->add_option("--workers", flags->workers, "workers to start")->check(CLI::Range(1, 64));
  command->add_flag("--print-config", flags->print_config, "print the resolved config and stop");
  command->callback([=] { *exit_code = Finish(Up(*flags)); });
}

}  // namespace plumbline
