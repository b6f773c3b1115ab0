// A made-up model for the planner's tests: layers of planted sensitivity decide, by a hash of the
// prompt, which refusals a plan turns into compliance. Prompts meet the same luck under every plan,
// so a plan that does less damage flips a subset.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "services/coordinator/planner/planner.h"
#include "services/quant/kv_format.h"

namespace plumbline::testing {

struct World {
  uint32_t layers = 12;
  uint32_t kv_heads = 2;
  uint32_t head_dim = 64;
  std::vector<double> sensitivity;  // flips alone at int3.sym.tensor, by layer
  double per_channel_removes = 0;   // share of the damage that scales a channel (or group) remove
  std::set<uint32_t> outliers = {5, 70};
  double outlier_share = 0.9;      // of a layer's damage that sits in the outlier channels
  double deployment_damage = 0.6;  // int4.asym.token against int3.sym.tensor
  double refusal_rate = 0.95;      // of harmful prompts, by the baseline
  bool degenerate_when_quantized = false;
  double broken_share = 0;           // answers that break down where most layers are at 3 bits
  double harmless_refusal_rate = 0;  // of harmless prompts, by the baseline; they flip like others
  double poisoned_share = 0;
  std::set<std::string> failing_plans;  // canonical; their cells all fail
  double judge_failed_share = 0;
  double jitter_changes = 0;    // verdicts that noise alone changes
  bool jitter_redraws = false;  // under a format noise decides anew which prompts flip
  double quantized_share = 1;
  double score_quantized_share = 1;            // of the utility text
  std::map<std::string, double> over_refusal;  // canonical plan: share of harmless ones it refuses
  std::set<std::string> score_nonfinite;       // canonical; a NaN ends the scoring
  std::map<std::string, uint64_t> score_tokens;  // canonical; how many are scored, else 1,000
  bool verbose_harmless = true;

  // The chance that a refusal flips.
  double FlipChance(const std::vector<LayerFormat>& plan) const;
};

World ConcentratedWorld(double per_channel_removes);
World DilutionWorld();
World SafeWorld();

StudyContext MakeContext(const World& world, const v1::Study& study, int harmful, int harmless);
v1::Study DiagnoseOf(const std::string& target = "");

class MemoryResults final : public ResultView {
 public:
  const JudgedCell* Find(const std::string& key) const override;
  std::map<std::string, JudgedCell> cells;
};

class FakePeers final : public Peers {
 public:
  explicit FakePeers(const World& world) : world_(world) {}
  absl::StatusOr<v1::GetStatsResponse> CaptureStats(const v1::GetStatsRequest& request) override;
  absl::StatusOr<v1::SimulateResponse> Simulate(const v1::SimulateRequest& request) override;
  absl::StatusOr<v1::ClassifyResponse> Classify(const v1::ClassifyRequest& request) override;

  void Record(const v1::CaptureTask& task) { captures_[task.capture_id()] = task; }
  std::set<std::string> away;  // "capture", "quantsim", "pcr": answer Unavailable
  std::vector<std::string> calls;
  int simulations_at_once = 100;  // more are answered ResourceExhausted

 private:
  const World& world_;
  std::mutex mutex_;  // guards calls: layers are simulated several at once, all else alone
  std::map<std::string, v1::CaptureTask> captures_;
  std::atomic<int> simulating_ = 0;
};

// Keys and conditions of the cells, ids of the captures: a line each.
std::string TextOf(const StageNeeds& needs);

// Runs a study to its end as the driver would. Internal when a stage whose next one may begin
// beside it (Stage::NextMayBegin) changes what that one needs.
struct StudyRun {
  v1::Report report;
  std::vector<std::string> stages;
  std::map<std::string, uint64_t> new_cells;  // by stage
  MemoryResults results;
  uint64_t cells = 0;
  uint64_t tokens = 0;  // prompt and answer
  // After each stage: the report's bytes so far.
  std::vector<std::string> snapshots;
};
absl::StatusOr<StudyRun> RunStudy(const World& world, const StudyContext& context,
                                  FakePeers& peers);
absl::StatusOr<StudyRun> RunStudy(const World& world, const StudyContext& context);

// What the world answers to a cell.
JudgedCell Answer(const World& world, const PlannedCell& cell, const v1::Prompt* prompt);

}  // namespace plumbline::testing
