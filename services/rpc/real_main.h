// What main() of every server does: flags, config, logging, signals, exit code.
//
//   int main(int argc, char** argv) {
//     plumbline::v1::JudgeConfig config;
//     return plumbline::RealMain(argc, argv,
//         {.name = "plumb-judge", .service = "judge", .summary = "Verdicts on answers.",
//          .examples = {"plumb-judge --set server.listen=127.0.0.1:0"}},
//         &config, [&](plumbline::Process& process) { return plumbline::RunJudge(config, process);
//         });
//   }
//
// Flags: --config FILE (text proto or JSON), --set a.b=c (repeated), --print-config, --version,
// --help.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "google/protobuf/message.h"
#include "services/common/clock.h"
#include "services/rpc/metrics.h"
#include "services/rpc/server.h"
#include "services/rpc/shutdown_signal.h"

namespace plumbline {

struct BinaryInfo {
  std::string name;     // "plumb-judge"
  std::string service;  // "judge", as Metrics::Create wants it
  std::string summary;  // one sentence
  std::vector<std::string> examples;
};

// What a server is given by its process.
struct Process {
  Metrics* metrics = nullptr;
  ShutdownSignal* shutdown = nullptr;
  Clock* clock = nullptr;
  std::string config_digest;
};

// Returns the exit code: 0, 1 (the run failed) or 2 (flags or config must be mended). The config's
// `server.log_level`, where it has one, sets the log level.
int RealMain(int argc, char** argv, const BinaryInfo& info, google::protobuf::Message* config,
             const std::function<absl::Status(Process&)>& run);

// Starts the server, waits for the shutdown signal, drains. `before_drain`, if any, runs after the
// signal and before new calls are refused.
absl::Status ServeUntilShutdown(RpcServerOptions options, Process& process,
                                const std::function<void()>& before_drain = nullptr);

}  // namespace plumbline
