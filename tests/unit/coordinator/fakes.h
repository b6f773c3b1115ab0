// A cluster without processes: a study of four stages, a judge, peers and workers that are
// functions.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "services/common/clock.h"
#include "services/coordinator/experiment_driver.h"
#include "services/coordinator/grpc_peers.h"
#include "services/coordinator/judge_client.h"
#include "services/coordinator/judge_pump.h"
#include "services/coordinator/lease_manager.h"
#include "services/coordinator/model_directory.h"
#include "services/coordinator/study_logic.h"
#include "services/store/store.h"

namespace plumbline::testing {

// baseline (every prompt) -> ablation (three plans on the refused prompts) -> outliers (a capture)
// -> headline (a classification). Plans are opaque texts.
class FakeLogic : public StudyLogic {
 public:
  absl::Status Fits(const v1::Study& study, const v1::ModelInfo& model) const override {
    return fits;
  }
  absl::Status fits;  // what Fits answers
  absl::Status SameRules(const v1::Report& report) const override { return rules; }
  absl::Status rules;  // what SameRules answers
  absl::StatusOr<v1::Study> Normalize(const v1::Study& study) const override;
  std::vector<std::unique_ptr<Stage>> Stages(const v1::Study& study) const override;
  v1::EstimateStudyResponse Estimate(const StudyContext& context) const override;
  absl::StatusOr<v1::CheckGateResponse> Gate(const v1::Report& report,
                                             const v1::CheckGateRequest& request) const override;
  absl::StatusOr<v1::ExportPlanResponse> Export(
      const v1::Report& report, const v1::ExportPlanRequest& request) const override;
  std::vector<v1::AnswerExample> Examples(const StudyContext& context, const v1::Report& report,
                                          const ResultView& results, int limit) const override;
};

class FakePeers : public CoordinatorPeers {
 public:
  absl::StatusOr<v1::GetStatsResponse> CaptureStats(const v1::GetStatsRequest& request) override;
  absl::StatusOr<v1::SimulateResponse> Simulate(const v1::SimulateRequest& request) override;
  absl::StatusOr<v1::ClassifyResponse> Classify(const v1::ClassifyRequest& request) override;
  absl::Status DeleteCapture(const std::string& capture_id) override;

  bool pcr_down = false;
  int captures_to_lose = 0;  // when asked for
  std::set<std::string> captures;
};

class FakeJudge : public JudgeClient {
 public:
  absl::StatusOr<std::vector<v1::Verdict>> Judge(
      const std::vector<v1::JudgeRequest>& requests) override;
  absl::StatusOr<std::vector<v1::JudgeCard>> ListJudges() override;

  bool down = false;
  std::string version = "v1";
  int judged = 0;
};

v1::ModelInfo TestModel();
v1::NumericsClass TestNumerics();
v1::WorkerCapabilities TestCapabilities();

// The answer of every honest worker to a cell.
v1::CellResult HonestResult(const v1::LeasedCell& cell);

// Speaks the worker's side of the protocol; what it does is decided by the test.
class FakeWorker {
 public:
  FakeWorker(std::string id, LeaseManager* manager, FakePeers* peers = nullptr);

  v1::SyncRequest MakeSync(uint32_t free_cells = 64);
  // Takes the answer in: starts and drops leases.
  void Apply(const v1::SyncResponse& response);
  absl::Status Sync(uint32_t free_cells = 64);
  // Runs `count` of the cells (and captures) it holds and reports them; counts each run in `runs`.
  absl::StatusOr<v1::ReportResponse> RunAndReport(size_t count = 1000);
  v1::ReportRequest Run(size_t count = 1000);
  void ReportTaken(const v1::ReportRequest& request);
  size_t cells_held() const;
  void Restart(LeaseManager* manager);  // a new process under the same name
  void SetManager(LeaseManager* manager) { manager_ = manager; }  // the coordinator restarted

  bool draining = false;
  bool capture_down = false;
  std::map<std::string, v1::Lease> leases;  // what it holds, finished cells removed
  std::map<std::string, int> runs;          // by cell key
  int captures_run = 0;
  std::vector<uint32_t> attempts;  // of the cells it was given, in order

 private:
  std::string id_;
  LeaseManager* manager_;
  FakePeers* peers_;
  int incarnation_ = 1;
  uint64_t sequence_ = 0;
};

// One coordinator's parts on a store file that outlives them.
class FakeCluster {
 public:
  explicit FakeCluster(LeaseOptions options = DefaultOptions());
  ~FakeCluster();

  static LeaseOptions DefaultOptions();
  // As kill -9 and a start: every part is made anew on the same file. Its store dies at the given
  // write; negative = never.
  void Restart(int writes_to_live = -1);
  bool dead = false;
  std::string CreateStudy(const std::string& name, int prompts);
  // Driver, judge and the given worker take turns until the experiment ends or `turns` are over.
  v1::ExperimentState RunToEnd(const std::string& id, FakeWorker* worker, int turns = 400);
  ExperimentRecord Record(const std::string& id);
  std::string ReportBytes(const std::string& id);
  StepOutcome Drive(const std::string& id);  // one step of its driver

  FakeClock clock;
  ChangeSignal changed;
  FakePeers peers;
  FakeJudge judge;
  FakeLogic logic;
  std::unique_ptr<Store> store;
  std::unique_ptr<ModelDirectory> directory;
  std::unique_ptr<LeaseManager> manager;
  std::unique_ptr<JudgePump> pump;
  std::map<std::string, std::unique_ptr<ExperimentDriver>> drivers;
  DriverDeps deps() const;

 private:
  LeaseOptions options_;
  std::string folder_;
};

}  // namespace plumbline::testing
