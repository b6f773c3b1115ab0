#include "services/coordinator/coordinator.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/common/logging.h"
#include "services/common/status_macros.h"
#include "services/coordinator/background_loop.h"
#include "services/coordinator/driver_pool.h"
#include "services/coordinator/housekeeper.h"
#include "services/rpc/server.h"
#include "services/store/sqlite/sqlite_store.h"

namespace plumbline {
namespace {

constexpr int kDriverThreads = 2;
constexpr double kDefaultAuditFraction = 0.01;
constexpr absl::Duration kLongestPause = absl::Seconds(1);
// A coordinator that is started where one is just ending waits for its drain (20 s) and a little.
constexpr absl::Duration kPredecessorDrains = absl::Seconds(25);

absl::StatusOr<LeaseOptions> LeaseOptionsFrom(const v1::CoordinatorConfig& config) {
  LeaseOptions options;
  if (config.lease_ttl_seconds() > 0) {
    options.lease_ttl = absl::Seconds(config.lease_ttl_seconds());
  }
  if (config.max_attempts() > 0) options.max_attempts = static_cast<int>(config.max_attempts());
  if (config.cells_per_lease() > 0) {
    options.cells_per_lease = static_cast<int>(config.cells_per_lease());
  }
  const double audit = config.audit_fraction();
  if (!(audit >= 0 && audit <= 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("audit_fraction must lie in [0, 1], got ", audit));
  }
  options.audit_fraction = audit == 0 ? kDefaultAuditFraction : audit;
  return options;
}

absl::StatusOr<std::unique_ptr<Store>> OpenStore(const v1::StoreConfig& config) {
  if (!config.postgres_conninfo_file().empty()) {
    return absl::UnimplementedError(
        "store.postgres_conninfo_file: this build has SQLite alone; set store.sqlite_file");
  }
  if (config.sqlite_file().empty()) {
    return absl::InvalidArgumentError("store.sqlite_file is empty: give the database's path");
  }
  return OpenSqliteStore({.path = config.sqlite_file(), .lock_patience = kPredecessorDrains});
}

class CoordinatorImpl final : public Coordinator {
 public:
  CoordinatorImpl(const v1::CoordinatorConfig& config, const LeaseOptions& options,
                  CoordinatorParts parts)
      : parts_(std::move(parts)),
        prompts_(config.prompts_root()),
        directory_(parts_.clock, options.lease_ttl * 2),
        leases_(options, parts_.store.get(), &directory_, parts_.clock, &changed_, parts_.metrics),
        pump_({.verdicts_only = config.verdicts_only()}, parts_.store.get(), parts_.judge.get(),
              parts_.clock, &changed_),
        drivers_(Deps()),
        housekeeper_(parts_.store.get(), &leases_, parts_.peers.get(), parts_.clock, parts_.metrics,
                     absl::Hours(24) * config.retain_texts_days()),
        experiments_({.store = parts_.store.get(),
                      .logic = parts_.logic.get(),
                      .prompts = &prompts_,
                      .directory = &directory_,
                      .peers = parts_.peers.get(),
                      .judge = parts_.judge.get(),
                      .clock = parts_.clock,
                      .changed = &changed_,
                      .render = parts_.render}),
        work_(&leases_, &changed_, MaxConcurrentCalls(config.server())) {
    for (int i = 0; i < kDriverThreads; ++i) AddLoop([this] { return drivers_.Round(); });
    AddLoop([this] {
      const auto judged = pump_.Step();
      if (!judged.ok()) spdlog::error("judging: {}", judged.status().ToString());
      return judged.ok() && *judged > 0;
    });
    AddLoop([this] {
      housekeeper_.Round();
      return false;
    });
  }

  ExperimentsService* experiments() override { return &experiments_; }
  WorkService* work() override { return &work_; }

 private:
  void AddLoop(std::function<bool()> round) {
    loops_.push_back(std::make_unique<BackgroundLoop>(&changed_, kLongestPause, std::move(round)));
  }

  DriverDeps Deps() {
    DriverDeps deps;
    deps.store = parts_.store.get();
    deps.logic = parts_.logic.get();
    deps.peers = parts_.peers.get();
    deps.judge = parts_.judge.get();
    deps.pump = &pump_;
    deps.directory = &directory_;
    deps.clock = parts_.clock;
    deps.changed = &changed_;
    deps.metrics = parts_.metrics;
    deps.version = std::string(BuildVersion());
    deps.config_digest = parts_.config_digest;
    return deps;
  }

  const CoordinatorParts parts_;
  ChangeSignal changed_;
  const PromptLoader prompts_;
  ModelDirectory directory_;
  LeaseManager leases_;
  JudgePump pump_;
  DriverPool drivers_;
  Housekeeper housekeeper_;
  ExperimentsService experiments_;
  WorkService work_;
  std::vector<std::unique_ptr<BackgroundLoop>> loops_;  // last: they stop before the rest goes
};

}  // namespace

absl::StatusOr<std::unique_ptr<Coordinator>> Coordinator::Create(
    const v1::CoordinatorConfig& config, CoordinatorParts parts) {
  PLUMB_ASSIGN_OR_RETURN(const LeaseOptions options, LeaseOptionsFrom(config));
  if (parts.store == nullptr) {
    PLUMB_ASSIGN_OR_RETURN(parts.store, OpenStore(config.store()));
  }
  if (parts.judge == nullptr) {
    PLUMB_ASSIGN_OR_RETURN(parts.judge, MakeJudgeClient(config.judge()));
  }
  if (parts.peers == nullptr) {
    PLUMB_ASSIGN_OR_RETURN(parts.peers,
                           MakeGrpcPeers(config.capture(), config.quantsim(), config.pcr()));
  }
  return std::make_unique<CoordinatorImpl>(config, options, std::move(parts));
}

}  // namespace plumbline
