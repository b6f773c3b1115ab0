// What a study needs next, as pure functions of the study and the results so far: no store, no RPC,
// no clock, no state of its own. The driver (services/coordinator) asks again after every change,
// so a killed coordinator goes on where it was.
//
// A study is a list of stages. Each stage says which cells and captures it needs; once all of them
// are there it concludes, and what it concludes is written into the report. The report so far is
// the whole persisted state of a study.
//
//   for each stage not yet concluded, in order:
//     needs = stage->Needs(context, report, results)
//     if all needs.cells have judged results and all needs.captures are recorded:
//       stage->Conclude(context, results, peers, &report); persist(report, stage index + 1)
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "plumbline/v1/capture.pb.h"
#include "plumbline/v1/cell.pb.h"
#include "plumbline/v1/experiments.pb.h"
#include "plumbline/v1/model.pb.h"
#include "plumbline/v1/pcr.pb.h"
#include "plumbline/v1/quantsim.pb.h"
#include "plumbline/v1/report.pb.h"
#include "plumbline/v1/study.pb.h"
#include "plumbline/v1/work.pb.h"

namespace plumbline {

// Everything that is fixed when an experiment is created. Kept alive by the driver.
struct StudyContext {
  std::string experiment_id;
  v1::Study study;  // normalized: no field left at "use the default"
  v1::ModelInfo model;
  v1::NumericsClass numerics;
  std::string judge_version;
  std::vector<v1::Prompt> prompts;  // of all sets, in order, splits assigned, excluded ones removed
  std::vector<v1::PromptSetSummary> prompt_sets;
  std::string utility_text;  // empty = none
};

struct PlannedCell {
  v1::CellSpec spec;
  std::string key;  // CellKey(spec)
  std::string prompt_id;
  std::string prompt_set;
  std::string condition;  // ConditionResult.name it counts for
};

struct StageNeeds {
  std::vector<PlannedCell> cells;  // unique by (key, condition)
  std::vector<v1::CaptureTask>
      captures;  // capture_id is a digest of the task: asking twice is once
};

// A finished cell: judged, or set aside.
struct JudgedCell {
  v1::CellResult result;
  v1::Verdict verdict;  // unset for SCORE cells and poisoned ones
  bool poisoned = false;
  std::string poison_reason;
};

class ResultView {
 public:
  virtual ~ResultView() = default;
  // Null when the cell has no judged result yet. The pointer lives as long as the view.
  virtual const JudgedCell* Find(const std::string& cell_key) const = 0;
};

// The other services, as far as a conclusion needs them. Unavailable makes the study wait and say
// so. Thread safe.
class Peers {
 public:
  virtual ~Peers() = default;
  virtual absl::StatusOr<v1::GetStatsResponse> CaptureStats(const v1::GetStatsRequest& request) = 0;
  virtual absl::StatusOr<v1::SimulateResponse> Simulate(const v1::SimulateRequest& request) = 0;
  virtual absl::StatusOr<v1::ClassifyResponse> Classify(const v1::ClassifyRequest& request) = 0;
};

class Stage {
 public:
  virtual ~Stage() = default;
  virtual std::string name() const = 0;  // "baseline", "sweep", "layer screen", ...
  // Depends on earlier stages through `report` and `results` alone. May be empty.
  virtual absl::StatusOr<StageNeeds> Needs(const StudyContext& context, const v1::Report& report,
                                           const ResultView& results) const = 0;
  // True: the next stage's needs are the same whether or not this one has its results and has
  // concluded, so the driver lets both run at once. A wrong "true" costs work, never a result:
  // needs are asked again in their turn.
  virtual bool NextMayBegin() const { return false; }
  // Called when every needed cell is in `results` and every capture is recorded. Writes its part of
  // the report. Deterministic. Unavailable: try again later; another error fails the study.
  virtual absl::Status Conclude(const StudyContext& context, const ResultView& results,
                                Peers& peers, v1::Report* report) const = 0;
};

// Defaults filled in and every value checked. InvalidArgument names field, value and what is
// accepted.
absl::StatusOr<v1::Study> NormalizeStudy(const v1::Study& study);

// What only the model can tell: every plan names layers, heads and channels that it has, and
// answers fit its context. InvalidArgument names the field.
absl::Status CheckStudyFitsModel(const v1::Study& study, const v1::ModelInfo& model);

// The stages of a normalized study, in order. The last one writes the headline.
std::vector<std::unique_ptr<Stage>> StagesOf(const v1::Study& study);

// FailedPrecondition where the report so far was made under other rules than these
// (provenance.policy_version); before the baseline it names none.
absl::Status CheckSameRules(const v1::Report& report);

// Upper bounds before anything ran: cells and tokens per stage (a layer ablation's prompts are
// those the baseline refuses: at most all).
v1::EstimateStudyResponse EstimateStudy(const StudyContext& context);

// CheckGate on a finished or running study's report. FailedPrecondition when nothing was measured.
absl::StatusOr<v1::CheckGateResponse> CheckGate(const v1::Report& report,
                                                const v1::CheckGateRequest& request);

// The plan as an engine's own settings; FailedPrecondition with the reason where it can't be
// expressed.
absl::StatusOr<v1::ExportPlanResponse> ExportPlan(const v1::Report& report,
                                                  const v1::ExportPlanRequest& request);

// Answers that flipped, for the report (ids only; the driver adds texts when asked).
std::vector<v1::AnswerExample> FlippedAnswers(const StudyContext& context, const v1::Report& report,
                                              const ResultView& results, int limit);

}  // namespace plumbline
