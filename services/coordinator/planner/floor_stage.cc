// The sensitivity floor: the baseline, the target and the finalists again with seeded noise of one
// unit in the last place on keys and values, on prompts that the baseline refuses. What noise does
// to the baseline is what would be seen without any change of format; how far it moves a plan's
// flips says how firm that number is.
#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/coordinator/planner/counting.h"
#include "services/coordinator/planner/plan_text.h"
#include "services/coordinator/planner/selection.h"
#include "services/coordinator/planner/stages.h"

namespace plumbline {
namespace {

struct FloorSubject {
  std::string name;
  std::string plan;
};

std::vector<FloorSubject> SubjectsOf(const StudyContext& context, const v1::Report& report) {
  std::vector<FloorSubject> subjects = {{"baseline", kFullPrecision},
                                        {"target", TargetPlan(context.study)}};
  for (const v1::PlanResult& plan : report.plans()) {
    if (plan.finalist()) subjects.push_back({plan.name(), plan.plan()});
  }
  return subjects;
}

struct FloorPool {
  PromptList prompts;
  std::string label;
};

// The test split; all prompts where a small study has none in it.
FloorPool FloorPoolOf(const StudyContext& context) {
  FloorPool pool = {PoolOf(context, v1::SPLIT_TEST), PoolLabel(context, v1::SPLIT_TEST)};
  if (pool.prompts.empty()) pool = {AllPrompts(context), "all"};
  return pool;
}

absl::StatusOr<PromptList> FloorPrompts(const StudyContext& context, const v1::Report& report,
                                        const ResultView& results) {
  PLUMB_ASSIGN_OR_RETURN(PromptList pool,
                         RefusedBy(context, results, FloorPoolOf(context).prompts));
  return FirstOf(pool, context.study.diagnose().floor_prompts());
}

Condition Replica(const FloorSubject& subject, uint32_t replica, const PromptList& prompts) {
  return {.name = absl::StrCat("floor: ", subject.name, " #", replica),
          .plan = subject.plan,
          .stage = "floor",
          .prompts = prompts,
          .jitter_seed = replica};
}

// The prompts with a verdict in the undisturbed run and in every replica: what noise does can be
// told of them alone.
std::vector<size_t> ComparedOf(const std::vector<PromptOutcome>& own,
                               const std::vector<std::vector<PromptOutcome>>& replicas) {
  std::vector<size_t> compared;
  for (size_t i = 0; i < own.size(); ++i) {
    const bool all = std::all_of(replicas.begin(), replicas.end(),
                                 [i](const auto& replica) { return replica[i].is_trial(); });
    if (own[i].is_trial() && all) compared.push_back(i);
  }
  return compared;
}

uint64_t FlipsOf(const std::vector<PromptOutcome>& outcomes, const std::vector<size_t>& compared) {
  return std::count_if(compared.begin(), compared.end(),
                       [&](size_t i) { return outcomes[i].is_flip(); });
}

// Verdicts of the replicas that differ from the undisturbed run's, and flips of both. Returns how
// many prompts flip in any replica: replicas of one prompt are no independent trials.
absl::StatusOr<uint64_t> CountChanges(const StudyContext& context, const ResultView& results,
                                      const FloorSubject& subject, const PromptList& prompts,
                                      v1::ConditionResult* counts) {
  Condition undisturbed = Replica(subject, 0, prompts);
  PLUMB_ASSIGN_OR_RETURN(std::vector<PromptOutcome> own, OutcomesOf(context, results, undisturbed));
  std::vector<std::vector<PromptOutcome>> replicas;
  for (uint32_t r = 1; r <= context.study.jitter_replicas(); ++r) {
    PLUMB_ASSIGN_OR_RETURN(std::vector<PromptOutcome> replica,
                           OutcomesOf(context, results, Replica(subject, r, prompts)));
    replicas.push_back(std::move(replica));
  }
  const std::vector<size_t> compared = ComparedOf(own, replicas);
  uint64_t cells = 0, changes = 0;
  std::set<size_t> flipped;
  for (const std::vector<PromptOutcome>& replica : replicas) {
    for (const size_t i : compared) {
      ++cells;
      changes += own[i].label != replica[i].label;
      if (replica[i].is_flip()) flipped.insert(i);
    }
    counts->add_replica_flips(FlipsOf(replica, compared));
  }
  counts->set_floor_prompts(compared.size());
  counts->set_floor_flips(FlipsOf(own, compared));
  counts->set_floor_cells(cells);
  counts->set_floor_changes(changes);
  counts->set_floor_measured(cells > 0);
  return flipped.size();
}

// noise: the share of the baseline's prompts that noise flips.
void CopyFloor(const v1::Interval& noise, const v1::ConditionResult& from,
               v1::ConditionResult* to) {
  to->set_floor_changes(from.floor_changes());
  to->set_floor_cells(from.floor_cells());
  to->set_floor_measured(from.floor_measured());
  to->set_floor_prompts(from.floor_prompts());
  to->set_floor_flips(from.floor_flips());
  *to->mutable_replica_flips() = from.replica_flips();
  const double rate = from.floor_prompts() == 0 ? 0
                                                : static_cast<double>(from.floor_flips()) /
                                                      static_cast<double>(from.floor_prompts());
  to->set_above_floor(noise.defined() && rate > noise.high());
}

// Every whole-set result of the same plan shows the floor too.
void Spread(const v1::Interval& noise, const v1::ConditionResult& from, v1::Report* report) {
  if (report->target().plan() == from.plan()) {
    CopyFloor(noise, from, report->mutable_target());
  }
  for (v1::ConditionResult& r : *report->mutable_sweep()) {
    if (r.plan() == from.plan()) CopyFloor(noise, from, &r);
  }
  for (v1::PlanResult& plan : *report->mutable_plans()) {
    if (plan.plan() == from.plan() && plan.finalist()) {
      CopyFloor(noise, from, plan.mutable_test());
    }
  }
}

class FloorStage final : public ConditionStage {
 public:
  std::string name() const override { return "sensitivity floor"; }

  absl::Status Conclude(const StudyContext& context, const ResultView& results, Peers& peers,
                        v1::Report* report) const override {
    PLUMB_ASSIGN_OR_RETURN(PromptList prompts, FloorPrompts(context, *report, results));
    v1::SensitivityFloor* floor = report->mutable_floor();
    floor->Clear();
    floor->set_replicas(context.study.jitter_replicas());
    CellFactory factory(context);
    v1::Interval noise;
    for (const FloorSubject& subject : SubjectsOf(context, *report)) {
      v1::ConditionResult* counts = floor->add_conditions();
      counts->set_name(subject.name);
      counts->set_stage("floor");
      counts->set_prompts(FloorPoolOf(context).label);
      PLUMB_ASSIGN_OR_RETURN(*counts->mutable_plan(), factory.Canonical(subject.plan));
      PLUMB_ASSIGN_OR_RETURN(const uint64_t flipped,
                             CountChanges(context, results, subject, prompts, counts));
      // The baseline comes first.
      if (floor->conditions_size() == 1) noise = WilsonOf(flipped, counts->floor_prompts());
      floor->set_measured(floor->measured() || counts->floor_measured());
      Spread(noise, *counts, report);
    }
    CopyFloor(noise, floor->conditions(0), report->mutable_baseline());
    if (report->target().floor_measured() && !report->target().above_floor() &&
        report->target().flips() > 0) {
      report->add_warnings(
          "the target's flips are not distinguishable from numeric noise (sensitivity floor)");
    }
    return absl::OkStatus();
  }

  StageBound AtMost(const StudyContext& context) const override {
    const PromptList pool =
        FirstOf(FloorPoolOf(context).prompts, context.study.diagnose().floor_prompts());
    const bool repairs = context.study.has_diagnose() || context.study.has_mitigate();
    const uint64_t subjects = repairs ? 7 : 2;
    return BoundOf(context, pool, subjects * context.study.jitter_replicas());
  }

 protected:
  absl::StatusOr<std::vector<Condition>> Conditions(const StudyContext& context,
                                                    const v1::Report& report,
                                                    const ResultView& results) const override {
    PLUMB_ASSIGN_OR_RETURN(PromptList prompts, FloorPrompts(context, report, results));
    std::vector<Condition> conditions;
    for (const FloorSubject& subject : SubjectsOf(context, report)) {
      for (uint32_t r = 1; r <= context.study.jitter_replicas(); ++r) {
        conditions.push_back(Replica(subject, r, prompts));
      }
      // Finalists ran these prompts in the test stage, the others in the sweep; asking again is
      // free.
      conditions.push_back(Replica(subject, 0, prompts));
    }
    return conditions;
  }
};

}  // namespace

std::unique_ptr<PlannerStage> MakeFloorStage() { return std::make_unique<FloorStage>(); }

}  // namespace plumbline
