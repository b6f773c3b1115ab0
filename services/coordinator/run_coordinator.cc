// The process: real study logic and report renderer.
#include "services/common/status_macros.h"
#include "services/coordinator/coordinator.h"
#include "services/coordinator/planner_logic.h"
#include "services/report/report.h"

namespace plumbline {
namespace {

void DefaultAddress(const char* address, v1::Endpoint* endpoint) {
  if (endpoint->address().empty()) endpoint->set_address(address);
}

}  // namespace

absl::Status RunCoordinator(const v1::CoordinatorConfig& given, Process& process) {
  v1::CoordinatorConfig config = given;
  DefaultAddress(kJudgeListen, config.mutable_judge());
  DefaultAddress(kPcrListen, config.mutable_pcr());
  DefaultAddress(kQuantsimListen, config.mutable_quantsim());
  DefaultAddress(kCaptureListen, config.mutable_capture());
  CoordinatorParts parts;
  parts.logic = std::make_unique<PlannerLogic>();
  parts.render = RenderReport;
  parts.clock = process.clock;
  parts.metrics = process.metrics;
  parts.config_digest = process.config_digest;
  PLUMB_ASSIGN_OR_RETURN(const std::unique_ptr<Coordinator> coordinator,
                         Coordinator::Create(config, std::move(parts)));
  RpcServerOptions options;
  options.default_listen = kCoordinatorListen;
  options.config = config.server();
  options.services = {Hosted<v1::Experiments>(coordinator->experiments()),
                      Hosted<v1::Work>(coordinator->work())};
  options.metrics = process.metrics;
  return ServeUntilShutdown(std::move(options), process,
                            [&] { coordinator->experiments()->EndWatches(); });
}

}  // namespace plumbline
