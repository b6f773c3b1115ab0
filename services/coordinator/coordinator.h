// The coordinator put together: store, leases, drivers, judge pump and the two services.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "plumbline/v1/config.pb.h"
#include "services/common/clock.h"
#include "services/coordinator/experiments_service.h"
#include "services/coordinator/judge_client.h"
#include "services/coordinator/work_service.h"
#include "services/rpc/real_main.h"

namespace plumbline {

// What tests replace; null = the real one from the config.
struct CoordinatorParts {
  std::unique_ptr<Store> store;
  std::unique_ptr<JudgeClient> judge;
  std::unique_ptr<CoordinatorPeers> peers;
  std::unique_ptr<StudyLogic> logic;  // required
  ReportRenderer render;              // required
  Clock* clock = Clock::Real();
  Metrics* metrics = nullptr;  // may stay null
  std::string config_digest;
};

// Runs from Create to its destructor. The services may be called from any thread meanwhile.
class Coordinator {
 public:
  // InvalidArgument names the config field; the store's codes.
  static absl::StatusOr<std::unique_ptr<Coordinator>> Create(const v1::CoordinatorConfig& config,
                                                             CoordinatorParts parts);
  virtual ~Coordinator() = default;
  virtual ExperimentsService* experiments() = 0;
  virtual WorkService* work() = 0;
};

// The process: serves until shutdown, then drains.
absl::Status RunCoordinator(const v1::CoordinatorConfig& config, Process& process);

}  // namespace plumbline
