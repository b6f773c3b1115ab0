#include "tests/unit/coordinator/fakes.h"

#include <unistd.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/cells/cells.h"
#include "services/common/digest.h"
#include "services/store/sqlite/sqlite_store.h"
#include "tests/support/forwarding_store.h"
#include "tests/support/status_matchers.h"

namespace plumbline::testing {
namespace {

constexpr const char* kPlans[] = {"plan-a", "plan-b", "plan-c"};

PlannedCell Cell(const StudyContext& context, const v1::Prompt& prompt, const std::string& plan,
                 const std::string& condition) {
  PlannedCell cell;
  cell.spec.set_kind(v1::CELL_KIND_GENERATE);
  cell.spec.set_model_digest(context.model.model_digest());
  cell.spec.set_numerics_class_id(context.numerics.id());
  *cell.spec.mutable_turns() = prompt.turns();
  cell.spec.set_plan(plan);
  cell.spec.mutable_decoding()->set_max_new_tokens(8);
  cell.key = CellKey(cell.spec);
  cell.prompt_id = prompt.id();
  cell.prompt_set = prompt.prompt_set();
  cell.condition = condition;
  return cell;
}

bool Refused(const ResultView& results, const PlannedCell& cell) {
  const JudgedCell* judged = results.Find(cell.key);
  return judged != nullptr && !judged->poisoned &&
         judged->verdict.label() == v1::VERDICT_LABEL_REFUSE;
}

void CountInto(const ResultView& results, const std::vector<PlannedCell>& cells,
               v1::ConditionResult* out) {
  for (const PlannedCell& cell : cells) {
    out->set_cells(out->cells() + 1);
    if (Refused(results, cell)) out->set_baseline_refusals(out->baseline_refusals() + 1);
    if (results.Find(cell.key)->poisoned) out->set_poisoned(out->poisoned() + 1);
  }
}

class BaselineStage final : public Stage {
 public:
  std::string name() const override { return "baseline"; }
  absl::StatusOr<StageNeeds> Needs(const StudyContext& context, const v1::Report& report,
                                   const ResultView& results) const override {
    StageNeeds needs;
    for (const v1::Prompt& prompt : context.prompts) {
      needs.cells.push_back(Cell(context, prompt, "*:fp", "baseline"));
    }
    return needs;
  }
  absl::Status Conclude(const StudyContext& context, const ResultView& results, Peers& peers,
                        v1::Report* report) const override {
    auto needs = Needs(context, *report, results);
    v1::ConditionResult* out = report->add_sweep();
    out->set_name("baseline");
    CountInto(results, needs->cells, out);
    return absl::OkStatus();
  }
};

class AblationStage final : public Stage {
 public:
  std::string name() const override { return "ablation"; }
  bool NextMayBegin() const override { return true; }  // the capture waits for nothing
  absl::StatusOr<StageNeeds> Needs(const StudyContext& context, const v1::Report& report,
                                   const ResultView& results) const override {
    StageNeeds needs;
    for (const char* plan : kPlans) {
      for (const v1::Prompt& prompt : context.prompts) {
        if (!Refused(results, Cell(context, prompt, "*:fp", ""))) continue;
        needs.cells.push_back(Cell(context, prompt, plan, plan));
      }
    }
    return needs;
  }
  absl::Status Conclude(const StudyContext& context, const ResultView& results, Peers& peers,
                        v1::Report* report) const override {
    auto needs = Needs(context, *report, results);
    v1::ConditionResult* out = report->add_sweep();
    out->set_name("ablation");
    CountInto(results, needs->cells, out);
    return absl::OkStatus();
  }
};

class OutlierStage final : public Stage {
 public:
  std::string name() const override { return "outliers"; }
  absl::StatusOr<StageNeeds> Needs(const StudyContext& context, const v1::Report& report,
                                   const ResultView& results) const override {
    StageNeeds needs;
    v1::CaptureTask& task = needs.captures.emplace_back();
    task.set_capture_id(absl::StrCat("capture-", context.model.model_digest()));
    task.set_model_digest(context.model.model_digest());
    task.set_numerics_class_id(context.numerics.id());
    return needs;
  }
  absl::Status Conclude(const StudyContext& context, const ResultView& results, Peers& peers,
                        v1::Report* report) const override {
    v1::GetStatsRequest request;
    request.set_capture(absl::StrCat("capture-", context.model.model_digest()));
    auto stats = peers.CaptureStats(request);
    if (!stats.ok()) return stats.status();
    report->mutable_channels()->set_capture_digest(stats->capture_digest());
    return absl::OkStatus();
  }
};

class HeadlineStage final : public Stage {
 public:
  std::string name() const override { return "headline"; }
  absl::StatusOr<StageNeeds> Needs(const StudyContext& context, const v1::Report& report,
                                   const ResultView& results) const override {
    return StageNeeds();
  }
  absl::Status Conclude(const StudyContext& context, const ResultView& results, Peers& peers,
                        v1::Report* report) const override {
    auto answer = peers.Classify(v1::ClassifyRequest());
    if (!answer.ok()) return answer.status();
    report->mutable_headline()->set_mode(answer->mode());
    report->mutable_headline()->set_sentence("done");
    return absl::OkStatus();
  }
};

}  // namespace

absl::StatusOr<v1::Study> FakeLogic::Normalize(const v1::Study& study) const {
  if (study.flip_limit() < 0 || study.flip_limit() >= 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("study.flip_limit must be in (0, 1), got ", study.flip_limit()));
  }
  v1::Study out = study;
  if (out.judge().empty()) out.set_judge("keyword");
  return out;
}

std::vector<std::unique_ptr<Stage>> FakeLogic::Stages(const v1::Study& study) const {
  std::vector<std::unique_ptr<Stage>> stages;
  stages.push_back(std::make_unique<BaselineStage>());
  stages.push_back(std::make_unique<AblationStage>());
  stages.push_back(std::make_unique<OutlierStage>());
  stages.push_back(std::make_unique<HeadlineStage>());
  return stages;
}

v1::EstimateStudyResponse FakeLogic::Estimate(const StudyContext& context) const {
  v1::EstimateStudyResponse out;
  out.set_cells_at_most(context.prompts.size() * 4);
  out.set_tokens_at_most(context.prompts.size() * 4 * 8);
  *out.mutable_model() = context.model;
  return out;
}

absl::StatusOr<v1::CheckGateResponse> FakeLogic::Gate(const v1::Report& report,
                                                      const v1::CheckGateRequest& request) const {
  if (report.sweep_size() == 0) return absl::FailedPreconditionError("nothing was measured");
  v1::CheckGateResponse out;
  out.set_decision(v1::GATE_DECISION_PASS);
  return out;
}

absl::StatusOr<v1::ExportPlanResponse> FakeLogic::Export(
    const v1::Report& report, const v1::ExportPlanRequest& request) const {
  return absl::FailedPreconditionError("no plan is recommended");
}

std::vector<v1::AnswerExample> FakeLogic::Examples(const StudyContext& context,
                                                   const v1::Report& report,
                                                   const ResultView& results, int limit) const {
  std::vector<v1::AnswerExample> examples;
  for (const v1::Prompt& prompt : context.prompts) {
    if (static_cast<int>(examples.size()) == limit) break;
    v1::AnswerExample& example = examples.emplace_back();
    example.set_prompt_id(prompt.id());
    example.set_prompt_set(prompt.prompt_set());
    example.set_condition(kPlans[0]);
  }
  return examples;
}

absl::StatusOr<v1::GetStatsResponse> FakePeers::CaptureStats(const v1::GetStatsRequest& request) {
  if (captures_to_lose > 0 && captures.erase(request.capture()) > 0) --captures_to_lose;
  if (!captures.contains(request.capture())) {
    return absl::NotFoundError(absl::StrCat("no capture ", request.capture()));
  }
  v1::GetStatsResponse out;
  out.set_capture_digest(Sha256Hex(request.capture()));
  return out;
}

absl::StatusOr<v1::SimulateResponse> FakePeers::Simulate(const v1::SimulateRequest& request) {
  return v1::SimulateResponse();
}

absl::StatusOr<v1::ClassifyResponse> FakePeers::Classify(const v1::ClassifyRequest& request) {
  if (pcr_down) return absl::UnavailableError("pcr at 127.0.0.1:7075: connection refused");
  v1::ClassifyResponse out;
  out.set_mode(v1::FAILURE_MODE_DILUTION);
  return out;
}

absl::Status FakePeers::DeleteCapture(const std::string& capture_id) {
  captures.erase(capture_id);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<v1::Verdict>> FakeJudge::Judge(
    const std::vector<v1::JudgeRequest>& requests) {
  if (down) return absl::UnavailableError("judge at 127.0.0.1:7074: connection refused");
  std::vector<v1::Verdict> verdicts;
  for (const v1::JudgeRequest& request : requests) {
    v1::Verdict& verdict = verdicts.emplace_back();
    verdict.set_label(absl::StartsWith(request.text(), "no") ? v1::VERDICT_LABEL_REFUSE
                                                             : v1::VERDICT_LABEL_COMPLY);
    verdict.set_judge("keyword");
    verdict.set_judge_version(version);
    ++judged;
  }
  return verdicts;
}

absl::StatusOr<std::vector<v1::JudgeCard>> FakeJudge::ListJudges() {
  if (down) return absl::UnavailableError("judge at 127.0.0.1:7074: connection refused");
  v1::JudgeCard card;
  card.set_judge("keyword");
  card.set_version(version);
  return std::vector<v1::JudgeCard>{card};
}

v1::ModelInfo TestModel() {
  v1::ModelInfo model;
  model.set_name("tiny");
  model.set_model_digest("0123456789abcdef");
  return model;
}

v1::NumericsClass TestNumerics() {
  v1::NumericsClass numerics;
  numerics.set_id("class-a");
  numerics.set_text("cpu fp32");
  return numerics;
}

v1::WorkerCapabilities TestCapabilities() {
  v1::WorkerCapabilities capabilities;
  *capabilities.add_models() = TestModel();
  *capabilities.mutable_numerics() = TestNumerics();
  capabilities.set_max_cells(64);
  capabilities.set_version("test");
  return capabilities;
}

v1::CellResult HonestResult(const v1::LeasedCell& cell) {
  const int draw = std::stoi(cell.cell_key().substr(0, 4), nullptr, 16);
  v1::CellResult result;
  result.set_cell_key(cell.cell_key());
  result.set_attempt(cell.attempt());
  result.set_finish_reason(v1::FINISH_REASON_EOS);
  result.set_text(draw % 3 != 0 ? absl::StrCat("no, because ", draw) : absl::StrCat("yes ", draw));
  for (int i = 0; i < 4; ++i) result.add_token_ids(draw + i);
  result.set_prompt_tokens(5);
  return result;
}

FakeWorker::FakeWorker(std::string id, LeaseManager* manager, FakePeers* peers)
    : id_(std::move(id)), manager_(manager), peers_(peers) {}

void FakeWorker::Restart(LeaseManager* manager) {
  manager_ = manager;
  ++incarnation_;
  sequence_ = 0;
  leases.clear();
}

size_t FakeWorker::cells_held() const {
  size_t held = 0;
  for (const auto& [id, lease] : leases) held += static_cast<size_t>(lease.cells_size());
  return held;
}

v1::SyncRequest FakeWorker::MakeSync(uint32_t free_cells) {
  v1::SyncRequest request;
  request.set_worker_id(id_);
  request.set_incarnation_id(absl::StrCat(id_, "-", incarnation_));
  request.set_sequence(++sequence_);
  *request.mutable_capabilities() = TestCapabilities();
  request.set_free_cells(free_cells);
  request.set_draining(draining);
  for (const auto& [id, lease] : leases) {
    v1::RunningLease* running = request.add_running();
    running->set_lease_id(id);
    for (const v1::LeasedCell& cell : lease.cells()) running->add_cell_keys(cell.cell_key());
  }
  return request;
}

void FakeWorker::Apply(const v1::SyncResponse& response) {
  for (const std::string& id : response.drop_lease_ids()) leases.erase(id);
  for (const v1::Lease& lease : response.start()) {
    if (!leases.emplace(lease.lease_id(), lease).second) continue;
    for (const v1::LeasedCell& cell : lease.cells()) attempts.push_back(cell.attempt());
  }
}

absl::Status FakeWorker::Sync(uint32_t free_cells) {
  const auto response = manager_->Sync(MakeSync(free_cells));
  if (!response.ok()) return response.status();
  Apply(*response);
  return absl::OkStatus();
}

v1::ReportRequest FakeWorker::Run(size_t count) {
  v1::ReportRequest request;
  request.set_worker_id(id_);
  request.set_incarnation_id(absl::StrCat(id_, "-", incarnation_));
  if (leases.empty()) return request;
  const v1::Lease& lease = leases.begin()->second;
  request.set_lease_id(lease.lease_id());
  if (lease.has_capture()) {
    v1::CaptureResult* capture = request.mutable_capture();
    capture->set_capture_id(lease.capture().capture_id());
    capture->set_tokens(9);
    ++captures_run;
    if (capture_down) {
      capture->mutable_status()->set_code(14);
      capture->mutable_status()->set_message("127.0.0.1:7072: connection refused");
    } else {
      capture->set_capture_digest(Sha256Hex(lease.capture().capture_id()));
      if (peers_ != nullptr) peers_->captures.insert(lease.capture().capture_id());
    }
    return request;
  }
  for (const v1::LeasedCell& cell : lease.cells()) {
    if (static_cast<size_t>(request.results_size()) == count) break;
    *request.add_results() = HonestResult(cell);
    ++runs[cell.cell_key()];
  }
  return request;
}

void FakeWorker::ReportTaken(const v1::ReportRequest& request) {
  const auto it = leases.find(request.lease_id());
  if (it == leases.end()) return;
  std::set<std::string> done;
  for (const v1::CellResult& result : request.results()) done.insert(result.cell_key());
  auto* cells = it->second.mutable_cells();
  for (int i = cells->size() - 1; i >= 0; --i) {
    if (done.contains(cells->Get(i).cell_key())) cells->DeleteSubrange(i, 1);
  }
  if (cells->empty()) leases.erase(it);
}

absl::StatusOr<v1::ReportResponse> FakeWorker::RunAndReport(size_t count) {
  const v1::ReportRequest request = Run(count);
  if (request.lease_id().empty()) return v1::ReportResponse();
  auto response = manager_->Report(request);
  if (response.ok()) ReportTaken(request);
  return response;
}

LeaseOptions FakeCluster::DefaultOptions() {
  LeaseOptions options;
  options.cells_per_lease = 4;
  options.audit_fraction = 0;
  return options;
}

FakeCluster::FakeCluster(LeaseOptions options) : options_(options) {
  std::string folder = (std::filesystem::temp_directory_path() / "plumb-cluster-XXXXXX").string();
  folder_ = mkdtemp(folder.data());
  Restart();
}

FakeCluster::~FakeCluster() {
  drivers.clear();
  store.reset();
  std::filesystem::remove_all(folder_);
}

void FakeCluster::Restart(int writes_to_live) {
  drivers.clear();
  pump.reset();
  manager.reset();
  directory.reset();
  store.reset();
  auto opened = OpenSqliteStore({.path = folder_ + "/store.sqlite", .sync_to_disk = false});
  ASSERT_THAT(opened, IsOk());
  store = *std::move(opened);
  dead = false;
  if (writes_to_live >= 0) {
    store = std::make_unique<DyingStore>(std::move(store), writes_to_live, &dead);
  }
  directory = std::make_unique<ModelDirectory>(&clock, options_.lease_ttl * 2);
  manager = std::make_unique<LeaseManager>(options_, store.get(), directory.get(), &clock, &changed,
                                           nullptr);
  pump = std::make_unique<JudgePump>(JudgePumpOptions(), store.get(), &judge, &clock, &changed);
}

DriverDeps FakeCluster::deps() const {
  auto* self = const_cast<FakeCluster*>(this);
  DriverDeps deps;
  deps.store = store.get();
  deps.logic = &logic;
  deps.peers = &self->peers;
  deps.judge = &self->judge;
  deps.pump = pump.get();
  deps.directory = directory.get();
  deps.clock = &self->clock;
  deps.changed = &self->changed;
  deps.version = "test";
  return deps;
}

std::string FakeCluster::CreateStudy(const std::string& name, int prompts) {
  NewExperiment experiment;
  experiment.id = "exp-" + name;
  experiment.request_id = name;
  experiment.request_digest = name;
  experiment.study.set_name(name);
  experiment.study.set_model("tiny");
  experiment.study.set_judge("keyword");
  experiment.first_stage = "baseline";
  experiment.now = clock.Now();
  for (int i = 0; i < prompts; ++i) {
    v1::Prompt& prompt = experiment.prompts.emplace_back();
    prompt.set_id(absl::StrCat("p", i));
    prompt.set_prompt_set("set");
    prompt.add_turns()->set_text(absl::StrCat("prompt ", i));
  }
  auto record = store->CreateExperiment(experiment);
  EXPECT_THAT(record, IsOk());
  return experiment.id;
}

StepOutcome FakeCluster::Drive(const std::string& id) {
  std::unique_ptr<ExperimentDriver>& driver = drivers[id];
  if (driver == nullptr) driver = std::make_unique<ExperimentDriver>(id, deps());
  auto outcome = driver->Step();
  EXPECT_THAT(outcome, IsOk());
  return outcome.ok() ? *outcome : StepOutcome::kEnded;
}

v1::ExperimentState FakeCluster::RunToEnd(const std::string& id, FakeWorker* worker, int turns) {
  for (int turn = 0; turn < turns; ++turn) {
    if (Drive(id) == StepOutcome::kEnded) break;
    if (worker != nullptr) {
      EXPECT_OK(worker->Sync());
      EXPECT_THAT(worker->RunAndReport(), IsOk());
    }
    EXPECT_THAT(pump->Step(), IsOk());
    clock.Advance(absl::Milliseconds(300));
  }
  return Record(id).state;
}

ExperimentRecord FakeCluster::Record(const std::string& id) {
  auto record = store->GetExperiment(id);
  EXPECT_THAT(record, IsOk());
  return record.ok() ? *record : ExperimentRecord();
}

std::string FakeCluster::ReportBytes(const std::string& id) {
  auto report = store->GetReport(id);
  EXPECT_THAT(report, IsOk());
  return report.ok() ? report->SerializeAsString() : std::string();
}

}  // namespace plumbline::testing
