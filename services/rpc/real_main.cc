#include "services/rpc/real_main.h"

#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "google/protobuf/descriptor.h"
#include "services/common/logging.h"
#include "services/common/status_macros.h"
#include "services/rpc/config.h"
#include "services/rpc/status.h"

namespace plumbline {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

struct Flags {
  std::string config_file;
  std::vector<std::string> overrides;
  bool print_config = false;
};

void Describe(const BinaryInfo& info, CLI::App* app, Flags* flags) {
  app->add_option("--config", flags->config_file,
                  "config file: text proto, or proto3 JSON (by extension or content)");
  app->add_option(
         "--set", flags->overrides,
         "override one field: server.listen=127.0.0.1:0; may be repeated; list elements as "
         "name[0]=value")
      ->allow_extra_args(false);
  app->add_flag("--print-config", flags->print_config, "print the resolved config and its digest");
  app->set_version_flag("--version", std::string(BuildVersion()));
  std::string footer = "Examples:\n";
  for (const std::string& example : info.examples) absl::StrAppend(&footer, "  ", example, "\n");
  app->footer(footer);
}

absl::Status Resolve(const Flags& flags, Message* config) {
  if (!flags.config_file.empty()) PLUMB_RETURN_IF_ERROR(LoadConfigFile(flags.config_file, config));
  for (const std::string& assignment : flags.overrides) {
    PLUMB_RETURN_IF_ERROR(ApplyOverride(assignment, config));
  }
  return absl::OkStatus();
}

std::string LogLevel(const Message& config) {
  const FieldDescriptor* field = config.GetDescriptor()->FindFieldByName("server");
  if (field == nullptr || field->message_type() != v1::ServerConfig::descriptor()) return "info";
  const auto& server =
      static_cast<const v1::ServerConfig&>(config.GetReflection()->GetMessage(config, field));
  return server.log_level().empty() ? "info" : server.log_level();
}

int Fail(const BinaryInfo& info, const absl::Status& status) {
  fprintf(stderr, "%s: %s: %s\n", info.name.c_str(),
          std::string(absl::StatusCodeToString(status.code())).c_str(),
          std::string(status.message()).c_str());
  return ExitCode(status);
}

}  // namespace

int RealMain(int argc, char** argv, const BinaryInfo& info, Message* config,
             const std::function<absl::Status(Process&)>& run) {
  CLI::App app(info.summary, info.name);
  Flags flags;
  Describe(info, &app, &flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  if (const absl::Status status = Resolve(flags, config); !status.ok()) {
    Fail(info, status);
    return 2;
  }
  const std::string digest = ConfigDigest(*config);
  if (flags.print_config) {
    printf("%s# digest %s\n", ConfigText(*config).c_str(), digest.c_str());
    return 0;
  }
  InitLogging(info.name, LogLevel(*config));
  // A core file would hold prompts and answers.
  const struct rlimit no_core = {0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  // Installed before gRPC starts a thread, so that no early signal is lost.
  ShutdownSignal shutdown;
  const std::unique_ptr<Metrics> metrics = Metrics::Create(info.service);
  Process process{metrics.get(), &shutdown, Clock::Real(), digest};
  spdlog::info("{} {} starts, config digest {}", info.name, std::string(BuildVersion()), digest);
  const absl::Status status = run(process);
  if (!status.ok()) return Fail(info, status);
  spdlog::info("{} ends", info.name);
  return 0;
}

absl::Status ServeUntilShutdown(RpcServerOptions options, Process& process,
                                const std::function<void()>& before_drain) {
  PLUMB_ASSIGN_OR_RETURN(std::unique_ptr<RpcServer> server, RpcServer::Start(std::move(options)));
  process.shutdown->Wait();
  spdlog::info("draining");
  if (before_drain) before_drain();
  server->Drain();
  return absl::OkStatus();
}

}  // namespace plumbline
