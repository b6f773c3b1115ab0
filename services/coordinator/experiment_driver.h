// Runs one experiment: binds it to a model, asks its stages what they need, waits for it,
// concludes.
//
// Every step starts from what the store holds, so a coordinator that was killed anywhere goes on
// where it was. In memory are only copies: the context and the finished results.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/common/clock.h"
#include "services/coordinator/change_signal.h"
#include "services/coordinator/judge_client.h"
#include "services/coordinator/judge_pump.h"
#include "services/coordinator/model_directory.h"
#include "services/coordinator/study_logic.h"
#include "services/rpc/metrics.h"
#include "services/store/store.h"

namespace plumbline {

// What a driver works with; nothing is owned, everything outlives it.
struct DriverDeps {
  Store* store = nullptr;
  const StudyLogic* logic = nullptr;
  Peers* peers = nullptr;
  JudgeClient* judge = nullptr;
  const JudgePump* pump = nullptr;
  const ModelDirectory* directory = nullptr;
  Clock* clock = nullptr;
  ChangeSignal* changed = nullptr;
  Metrics* metrics = nullptr;  // may be null
  std::string version;         // of this build, for the provenance
  std::string config_digest;   // likewise
};

// Results of finished cells by key.
class ResultCache final : public ResultView {
 public:
  const JudgedCell* Find(const std::string& cell_key) const override;
  void Add(std::vector<FinishedCell> cells);

 private:
  absl::flat_hash_map<std::string, std::unique_ptr<JudgedCell>> cells_;
};

enum class StepOutcome {
  kProgress,  // step again at once
  kWaiting,   // nothing to do until something changes
  kEnded,
};

// Not thread safe: one thread steps it.
class ExperimentDriver {
 public:
  ExperimentDriver(std::string id, DriverDeps deps) : id_(std::move(id)), deps_(std::move(deps)) {}

  // An error is the store's; the experiment stands where it was.
  absl::StatusOr<StepOutcome> Step();

 private:
  absl::StatusOr<StepOutcome> StepActive(const ExperimentRecord& record);
  absl::StatusOr<StepOutcome> Bind(const ExperimentRecord& record);
  absl::Status Load(const ExperimentRecord& record);
  absl::StatusOr<StepOutcome> Plan(const ExperimentRecord& record);
  absl::Status AddNeeds(int stage_index, const StageNeeds& needs);
  absl::StatusOr<StepOutcome> WaitOrConclude(const ExperimentRecord& record);
  absl::StatusOr<StepOutcome> Conclude(const ExperimentRecord& record);
  // FailedPrecondition with a reason when every cell of the stage was set aside.
  absl::Status SomethingRan() const;
  // The capture service has lost what a conclusion asks for: the stage's captures are made anew.
  absl::StatusOr<StepOutcome> CaptureAgain(const absl::Status& lost);
  // The first thing the stage waits for, empty when there is nothing to tell; error: the study
  // fails.
  absl::StatusOr<std::string> WhyWaiting(const ExperimentRecord& record, const StageCount& count,
                                         const std::vector<CaptureRecord>& captures) const;
  absl::StatusOr<StepOutcome> SetState(const ExperimentRecord& record, v1::ExperimentState state,
                                       const std::string& message);
  // Unavailable makes the study wait, anything else fails it.
  absl::StatusOr<StepOutcome> StopFor(const ExperimentRecord& record, const absl::Status& status);

  const std::string id_;
  const DriverDeps deps_;
  bool loaded_ = false;
  StudyContext context_;
  std::vector<std::unique_ptr<Stage>> stages_;
  ResultCache results_;
  v1::Report report_;
  int planned_stage_ = -1;  // the stage whose needs are in the store
  StageNeeds needs_;
  int captured_again_ = 0;  // in this stage, by this driver
};

// The context of a bound experiment, from the store.
absl::StatusOr<StudyContext> LoadContext(Store* store, const ExperimentRecord& record);

}  // namespace plumbline
