// What every Store must do. One body, run on each implementation.
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/store/sqlite/sqlite_store.h"
#include "services/store/store.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::IsOk;
using ::testing::SizeIs;
using testing::StatusIs;

// Makes stores of one implementation; Open again finds what the last one kept.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual absl::StatusOr<std::unique_ptr<Store>> Open() = 0;
};

class SqliteBackend final : public Backend {
 public:
  SqliteBackend() {
    std::string folder = (std::filesystem::temp_directory_path() / "plumb-store-XXXXXX").string();
    folder_ = mkdtemp(folder.data());
  }
  ~SqliteBackend() override { std::filesystem::remove_all(folder_); }
  absl::StatusOr<std::unique_ptr<Store>> Open() override {
    return OpenSqliteStore({.path = folder_ + "/store.sqlite", .sync_to_disk = false});
  }

 private:
  std::string folder_;
};

struct Implementation {
  std::string name;
  std::function<std::unique_ptr<Backend>()> make;
};

class StoreContract : public ::testing::TestWithParam<Implementation> {
 protected:
  void SetUp() override {
    backend_ = GetParam().make();
    Reopen();
  }

  void Reopen() {
    store_.reset();
    auto store = backend_->Open();
    ASSERT_THAT(store, IsOk());
    store_ = *std::move(store);
  }

  absl::Time At(int seconds) const { return absl::FromUnixSeconds(1000000 + seconds); }

  NewExperiment Study(const std::string& name, int prompts = 2) const {
    NewExperiment experiment;
    experiment.id = "exp-" + name;
    experiment.request_id = "request-" + name;
    experiment.request_digest = "digest-" + name;
    experiment.study.set_name(name);
    experiment.study.set_judge("keyword");
    for (int i = 0; i < prompts; ++i) {
      v1::Prompt& prompt = experiment.prompts.emplace_back();
      prompt.set_id(absl::StrCat("p", i));
      prompt.add_turns()->set_text("prompt text");
    }
    experiment.prompt_sets.emplace_back().set_name("set");
    experiment.first_stage = "baseline";
    experiment.now = At(0);
    return experiment;
  }

  std::string Create(const std::string& name, bool bind = true) {
    auto record = store_->CreateExperiment(Study(name));
    EXPECT_THAT(record, IsOk());
    v1::ModelInfo model;
    model.set_model_digest("m");
    v1::NumericsClass numerics;
    numerics.set_id("c");
    if (bind) {
      EXPECT_OK(store_->BindExperiment(record->id, model, numerics, "v1", v1::Report(), At(0)));
      EXPECT_OK(store_->SetState(record->id, v1::EXPERIMENT_STATE_RUNNING, "", At(0)));
    }
    return record->id;
  }

  CellMember Member(const std::string& key, const std::string& condition = "baseline") const {
    CellMember member;
    member.key = key;
    member.spec.set_kind(v1::CELL_KIND_GENERATE);
    member.spec.set_model_digest("m");
    member.spec.set_numerics_class_id("c");
    member.spec.add_turns()->set_text("say " + key);
    member.condition = condition;
    member.prompt_id = "p-" + key;
    member.prompt_set = "set";
    return member;
  }

  void AddCells(const std::string& id, const std::vector<std::string>& keys) {
    std::vector<CellMember> members;
    for (const std::string& key : keys) {
      members.push_back(Member(key));
      members.back().position = static_cast<int64_t>(members.size());
    }
    ASSERT_OK(store_->AddCells(id, 0, "baseline", members));
  }

  std::vector<std::string> OpenKeys(const std::string& id, int limit = 100, int at = 1000) {
    auto cells = store_->OpenCells(id, "m", "c", At(at), limit);
    EXPECT_THAT(cells, IsOk());
    std::vector<std::string> keys;
    for (const OpenCell& cell : *cells) keys.push_back(cell.cell_key);
    return keys;
  }

  LeaseRecord Lease(const std::string& lease_id, const std::vector<std::string>& keys,
                    const std::string& worker = "w1") const {
    LeaseRecord lease;
    lease.lease_id = lease_id;
    lease.worker_id = worker;
    lease.incarnation_id = "i1";
    lease.expires = At(30);
    lease.cell_keys = keys;
    return lease;
  }

  NewResult Result(const std::string& key, const std::string& digest = "d") const {
    NewResult result;
    result.result.set_cell_key(key);
    result.result.set_text("answer to " + key);
    result.result.add_token_ids(7);
    result.result.set_finish_reason(v1::FINISH_REASON_EOS);
    result.digest = digest;
    return result;
  }

  PutOutcome Put(const std::string& worker, const std::string& key, const std::string& digest = "d",
                 const std::string& lease = "") {
    auto outcomes = store_->PutResults(worker, lease, {Result(key, digest)}, At(5));
    EXPECT_THAT(outcomes, IsOk());
    return outcomes->at(0).outcome;
  }

  NewVerdict Verdict(const std::string& key, v1::VerdictLabel label = v1::VERDICT_LABEL_REFUSE) {
    NewVerdict verdict;
    verdict.cell_key = key;
    verdict.verdict_key = "vk-" + key;
    verdict.verdict.set_label(label);
    verdict.verdict.set_judge("keyword");
    verdict.verdict.set_judge_version("v1");
    return verdict;
  }

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Store> store_;
};

TEST_P(StoreContract, TheSameRequestAnswersTheSameExperiment) {
  ASSERT_OK_AND_ASSIGN(const ExperimentRecord first, store_->CreateExperiment(Study("a")));
  ASSERT_OK_AND_ASSIGN(const ExperimentRecord again, store_->CreateExperiment(Study("a")));
  EXPECT_EQ(first.id, again.id);
  EXPECT_EQ(first.number, again.number);
  NewExperiment other = Study("a");
  other.request_digest = "another study";
  EXPECT_THAT(store_->CreateExperiment(other),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("request-a")));
}

TEST_P(StoreContract, AnExperimentComesBackAsItWasStored) {
  const std::string id = Create("a");
  Reopen();
  ASSERT_OK_AND_ASSIGN(const ExperimentRecord record, store_->GetExperiment(id));
  EXPECT_EQ(record.study.name(), "a");
  EXPECT_EQ(record.state, v1::EXPERIMENT_STATE_RUNNING);
  EXPECT_EQ(record.model.model_digest(), "m");
  EXPECT_EQ(record.numerics.id(), "c");
  EXPECT_EQ(record.judge_version, "v1");
  EXPECT_EQ(record.created, At(0));
  EXPECT_EQ(record.ended, absl::InfinitePast());
  ASSERT_OK_AND_ASSIGN(const ExperimentPrompts prompts, store_->GetPrompts(id));
  ASSERT_THAT(prompts.prompts, SizeIs(2));
  EXPECT_EQ(prompts.prompts[1].id(), "p1");
  EXPECT_THAT(prompts.prompt_sets, SizeIs(1));
  EXPECT_THAT(store_->GetExperiment("nope"), StatusIs(absl::StatusCode::kNotFound));
}

TEST_P(StoreContract, ListsAreNewestFirstInPages) {
  for (const char* name : {"a", "b", "c"}) Create(name);
  ASSERT_OK_AND_ASSIGN(const auto page, store_->ListExperiments(0, 2));
  ASSERT_THAT(page, SizeIs(2));
  EXPECT_EQ(page[0].id, "exp-c");
  EXPECT_EQ(page[1].id, "exp-b");
  ASSERT_OK_AND_ASSIGN(const auto rest, store_->ListExperiments(page[1].number, 2));
  ASSERT_THAT(rest, SizeIs(1));
  EXPECT_EQ(rest[0].id, "exp-a");
}

TEST_P(StoreContract, BindingHappensOnce) {
  const std::string id = Create("a");
  EXPECT_THAT(
      store_->BindExperiment(id, v1::ModelInfo(), v1::NumericsClass(), "v2", v1::Report(), At(1)),
      StatusIs(absl::StatusCode::kAborted));
}

TEST_P(StoreContract, AnEndedExperimentKeepsItsState) {
  const std::string id = Create("a");
  ASSERT_OK(store_->CancelExperiment(id, At(3)));
  EXPECT_THAT(store_->SetState(id, v1::EXPERIMENT_STATE_RUNNING, "", At(4)),
              StatusIs(absl::StatusCode::kAborted));
  EXPECT_THAT(store_->ConcludeStage(id, 0, v1::Report(), "next", At(4)),
              StatusIs(absl::StatusCode::kAborted));
  EXPECT_OK(store_->CancelExperiment(id, At(5)));
  ASSERT_OK_AND_ASSIGN(const ExperimentRecord record, store_->GetExperiment(id));
  EXPECT_EQ(record.state, v1::EXPERIMENT_STATE_CANCELLED);
  EXPECT_EQ(record.ended, At(3));
}

TEST_P(StoreContract, AStageConcludesOnceWithItsReport) {
  const std::string id = Create("a");
  v1::Report report;
  report.set_lowest_safe_format("int8");
  ASSERT_OK(store_->ConcludeStage(id, 0, report, "sweep", At(2)));
  EXPECT_THAT(store_->ConcludeStage(id, 0, v1::Report(), "sweep", At(3)),
              StatusIs(absl::StatusCode::kAborted));
  Reopen();
  ASSERT_OK_AND_ASSIGN(const ExperimentRecord record, store_->GetExperiment(id));
  EXPECT_EQ(record.stage_index, 1);
  EXPECT_EQ(record.stage, "sweep");
  ASSERT_OK_AND_ASSIGN(const v1::Report back, store_->GetReport(id));
  EXPECT_EQ(back.lowest_safe_format(), "int8");
  ASSERT_OK(store_->ConcludeStage(id, 1, report, "", At(9)));
  ASSERT_OK_AND_ASSIGN(const ExperimentRecord ended, store_->GetExperiment(id));
  EXPECT_EQ(ended.state, v1::EXPERIMENT_STATE_SUCCEEDED);
  EXPECT_EQ(ended.ended, At(9));
  EXPECT_THAT(store_->ResumeExperiment(id, At(10)),
              StatusIs(absl::StatusCode::kFailedPrecondition));
}

TEST_P(StoreContract, AddingCellsTwiceIsOnce) {
  const std::string id = Create("a");
  AddCells(id, {"k1", "k2"});
  AddCells(id, {"k1", "k2"});
  ASSERT_OK_AND_ASSIGN(const auto counts, store_->CountStages(id));
  ASSERT_THAT(counts, SizeIs(1));
  EXPECT_EQ(counts[0].total, 2u);
  EXPECT_EQ(counts[0].finished, 0u);
  EXPECT_THAT(OpenKeys(id), ElementsAre("k1", "k2"));
}

TEST_P(StoreContract, ACellOfTwoConditionsIsHandedOutOnceAndListedTwice) {
  const std::string id = Create("a");
  ASSERT_OK(store_->AddCells(id, 0, "s", {Member("k1", "one"), Member("k1", "two")}));
  EXPECT_THAT(OpenKeys(id), ElementsAre("k1"));
  ASSERT_OK_AND_ASSIGN(const auto rows, store_->ListResults(id, "", "", 10, false));
  EXPECT_THAT(rows, SizeIs(2));
}

TEST_P(StoreContract, OnlyOpenCellsOfTheRightModelAndClassAreHandedOut) {
  const std::string id = Create("a");
  AddCells(id, {"k1", "k2", "k3"});
  ASSERT_OK(store_->GrantLease(Lease("l1", {"k1"})));
  Put("w9", "k2");
  EXPECT_THAT(OpenKeys(id), ElementsAre("k3"));
  ASSERT_OK_AND_ASSIGN(const auto other_model, store_->OpenCells(id, "m2", "c", At(0), 10));
  EXPECT_THAT(other_model, IsEmpty());
  ASSERT_OK_AND_ASSIGN(const auto other_class, store_->OpenCells(id, "m", "c2", At(0), 10));
  EXPECT_THAT(other_class, IsEmpty());
}

TEST_P(StoreContract, ALeaseIsGrantedWholeOrNotAtAll) {
  const std::string id = Create("a");
  AddCells(id, {"k1", "k2"});
  ASSERT_OK(store_->GrantLease(Lease("l1", {"k1"})));
  EXPECT_THAT(store_->GrantLease(Lease("l2", {"k2", "k1"})), StatusIs(absl::StatusCode::kAborted));
  EXPECT_THAT(OpenKeys(id), ElementsAre("k2"));
  ASSERT_OK_AND_ASSIGN(const auto leases, store_->LeasesOfWorker("w1"));
  EXPECT_THAT(leases, SizeIs(1));
}

TEST_P(StoreContract, LeasesSurviveAReopenWithCellsAndAttempts) {
  const std::string id = Create("a");
  AddCells(id, {"k1", "k2"});
  ASSERT_OK(store_->GrantLease(Lease("l1", {"k2", "k1"})));
  Reopen();
  ASSERT_OK_AND_ASSIGN(const auto leases, store_->LeasesOfWorker("w1"));
  ASSERT_THAT(leases, SizeIs(1));
  EXPECT_THAT(leases[0].cell_keys, ElementsAre("k2", "k1"));
  EXPECT_EQ(leases[0].expires, At(30));
  ASSERT_OK_AND_ASSIGN(const auto cells, store_->CellsOfLease("l1"));
  ASSERT_THAT(cells, SizeIs(2));
  EXPECT_EQ(cells[0].attempt(), 1u);
  EXPECT_EQ(cells[0].spec().turns(0).text(), "say k2");
}

TEST_P(StoreContract, AnEndedLeaseGivesItsCellsBackUntilTheirAttemptsAreUsedUp) {
  const std::string id = Create("a");
  AddCells(id, {"k1"});
  WorkFailure failure;
  failure.max_attempts = 2;
  failure.reason = "worker vanished";
  ASSERT_OK(store_->GrantLease(Lease("l1", {"k1"})));
  ASSERT_OK(store_->EndLease("l1", failure));
  EXPECT_OK(store_->EndLease("l1", failure)) << "gone already";
  EXPECT_THAT(OpenKeys(id), ElementsAre("k1"));
  ASSERT_OK(store_->GrantLease(Lease("l2", {"k1"})));
  ASSERT_OK(store_->EndLease("l2", failure));
  EXPECT_THAT(OpenKeys(id), IsEmpty());
  ASSERT_OK_AND_ASSIGN(const auto finished, store_->FinishedCells(id, 0));
  ASSERT_THAT(finished, SizeIs(1));
  EXPECT_TRUE(finished[0].poisoned);
  EXPECT_EQ(finished[0].poison_reason, "worker vanished");
}

TEST_P(StoreContract, AReturnedCellLosesNoAttempt) {
  const std::string id = Create("a");
  AddCells(id, {"k1"});
  WorkFailure returned;
  returned.kind = FailureKind::kReturned;
  returned.max_attempts = 1;
  for (int i = 0; i < 5; ++i) {
    const std::string lease = absl::StrCat("l", i);
    ASSERT_OK(store_->GrantLease(Lease(lease, {"k1"})));
    ASSERT_OK_AND_ASSIGN(const FailOutcome outcome, store_->FailCell(lease, "k1", returned));
    EXPECT_EQ(outcome, FailOutcome::kRetry);
  }
  ASSERT_OK_AND_ASSIGN(const auto open, store_->OpenCells(id, "m", "c", At(0), 1));
  ASSERT_THAT(open, SizeIs(1));
  EXPECT_EQ(open[0].attempts, 0);
}

TEST_P(StoreContract, APermanentFailurePoisonsAtOnceAndABackoffDelays) {
  const std::string id = Create("a");
  AddCells(id, {"k1", "k2"});
  ASSERT_OK(store_->GrantLease(Lease("l1", {"k1", "k2"})));
  WorkFailure permanent;
  permanent.kind = FailureKind::kPermanent;
  ASSERT_OK_AND_ASSIGN(FailOutcome outcome, store_->FailCell("l1", "k1", permanent));
  EXPECT_EQ(outcome, FailOutcome::kPoisoned);
  WorkFailure later;
  later.not_before = At(60);
  ASSERT_OK_AND_ASSIGN(outcome, store_->FailCell("l1", "k2", later));
  EXPECT_EQ(outcome, FailOutcome::kRetry);
  EXPECT_THAT(OpenKeys(id, 10, 59), IsEmpty());
  EXPECT_THAT(OpenKeys(id, 10, 60), ElementsAre("k2"));
  ASSERT_OK_AND_ASSIGN(const auto leases, store_->LeasesOfWorker("w1"));
  EXPECT_THAT(leases, IsEmpty()) << "a lease without cells ends";
}

TEST_P(StoreContract, AFailureOfALostLeaseChangesNothing) {
  const std::string id = Create("a");
  AddCells(id, {"k1"});
  ASSERT_OK(store_->GrantLease(Lease("l1", {"k1"})));
  ASSERT_OK(store_->EndLease("l1", {}));
  ASSERT_OK(store_->GrantLease(Lease("l2", {"k1"}, "w2")));
  WorkFailure permanent;
  permanent.kind = FailureKind::kPermanent;
  ASSERT_OK_AND_ASSIGN(const FailOutcome outcome, store_->FailCell("l1", "k1", permanent));
  EXPECT_EQ(outcome, FailOutcome::kRetry);
  ASSERT_OK_AND_ASSIGN(const auto leases, store_->LeasesOfWorker("w2"));
  ASSERT_THAT(leases, SizeIs(1));
  EXPECT_THAT(leases[0].cell_keys, ElementsAre("k1"));
}

TEST_P(StoreContract, TheFirstResultWinsWhoeverHoldsTheLease) {
  const std::string id = Create("a");
  AddCells(id, {"k1"});
  ASSERT_OK(store_->GrantLease(Lease("l1", {"k1"}, "w1")));
  EXPECT_EQ(Put("w2", "k1", "d", "an old lease"), PutOutcome::kStored);
  ASSERT_OK_AND_ASSIGN(const auto leases, store_->LeasesOfWorker("w1"));
  EXPECT_THAT(leases, IsEmpty()) << "a stored cell leaves its lease in the same transaction";
  EXPECT_EQ(Put("w1", "k1", "d", "l1"), PutOutcome::kEqual);
  EXPECT_EQ(Put("w1", "unknown", "d"), PutOutcome::kUnknownCell);
  ASSERT_OK_AND_ASSIGN(const auto rows, store_->ListResults(id, "", "", 10, true));
  ASSERT_THAT(rows, SizeIs(1));
  EXPECT_EQ(rows[0].result.worker_id(), "w2");
  EXPECT_EQ(rows[0].result.text(), "answer to k1");
}

TEST_P(StoreContract, ADifferentResultQuarantinesBothWorkersAndFlagsTheStudies) {
  const std::string a = Create("a");
  const std::string b = Create("b");
  AddCells(a, {"k1", "k2"});
  AddCells(b, {"k1"});
  EXPECT_EQ(Put("w1", "k1", "d1"), PutOutcome::kStored);
  ASSERT_OK(store_->GrantLease(Lease("l2", {"k2"}, "w2")));
  EXPECT_EQ(Put("w2", "k1", "d2"), PutOutcome::kConflict);
  Reopen();
  ASSERT_OK_AND_ASSIGN(const auto quarantined, store_->Quarantined());
  ASSERT_THAT(quarantined, SizeIs(2));
  EXPECT_EQ(quarantined[0].worker_id, "w1");
  EXPECT_THAT(quarantined[1].reason, HasSubstr("k1"));
  for (const std::string& id : {a, b}) {
    ASSERT_OK_AND_ASSIGN(const ExperimentRecord record, store_->GetExperiment(id));
    EXPECT_EQ(record.violations, 1u) << id;
  }
  EXPECT_THAT(OpenKeys(a), ElementsAre("k2")) << "a quarantined worker's cells go back";
  ASSERT_OK_AND_ASSIGN(const auto rows, store_->ListResults(a, "", "", 1, false));
  EXPECT_EQ(rows[0].result.worker_id(), "w1") << "the first result stays";
}

TEST_P(StoreContract, ALateResultOfAPoisonedCellIsStored) {
  const std::string id = Create("a");
  AddCells(id, {"k1"});
  ASSERT_OK(store_->GrantLease(Lease("l1", {"k1"})));
  WorkFailure failure;
  failure.max_attempts = 1;
  ASSERT_OK(store_->EndLease("l1", failure));
  EXPECT_EQ(Put("w1", "k1"), PutOutcome::kStored);
  ASSERT_OK_AND_ASSIGN(const auto counts, store_->CountStages(id));
  EXPECT_EQ(counts[0].poisoned, 0u);
  EXPECT_EQ(counts[0].stored, 1u);
}

TEST_P(StoreContract, AnAuditIsGrantedToAnotherWorkerAndCountedWhenEqual) {
  const std::string id = Create("a");
  AddCells(id, {"k1"});
  NewResult audited = Result("k1");
  audited.want_audit = true;
  ASSERT_OK(store_->PutResults("w1", "", {audited}, At(1)).status());
  ASSERT_OK_AND_ASSIGN(auto own, store_->WantedAudits("w1", "m", "c", 10));
  EXPECT_THAT(own, IsEmpty());
  ASSERT_OK_AND_ASSIGN(auto others, store_->WantedAudits("w2", "m", "c", 10));
  EXPECT_THAT(others, ElementsAre("k1"));
  LeaseRecord lease = Lease("l1", {"k1"}, "w2");
  lease.audit = true;
  ASSERT_OK(store_->GrantLease(lease));
  ASSERT_OK_AND_ASSIGN(others, store_->WantedAudits("w2", "m", "c", 10));
  EXPECT_THAT(others, IsEmpty());
  EXPECT_EQ(Put("w2", "k1", "d", "l1"), PutOutcome::kEqual);
  ASSERT_OK_AND_ASSIGN(const auto leases, store_->LeasesOfWorker("w2"));
  EXPECT_THAT(leases, IsEmpty());
  ASSERT_OK_AND_ASSIGN(const ExperimentTotals totals, store_->GetTotals(id));
  EXPECT_EQ(totals.audited, 1u);
}

TEST_P(StoreContract, AResultThatWasThereBeforeIsShared) {
  const std::string a = Create("a");
  AddCells(a, {"k1"});
  Put("w1", "k1");
  const std::string b = Create("b");
  AddCells(b, {"k1", "k2"});
  ASSERT_OK_AND_ASSIGN(auto counts, store_->CountStages(b));
  EXPECT_EQ(counts[0].shared, 1u);
  EXPECT_EQ(counts[0].stored, 1u);
  Put("w1", "k2");
  AddCells(b, {"k1", "k2"});
  ASSERT_OK_AND_ASSIGN(counts, store_->CountStages(b));
  EXPECT_EQ(counts[0].shared, 1u) << "what the experiment ran itself is not shared";
  ASSERT_OK_AND_ASSIGN(const ExperimentTotals totals, store_->GetTotals(b));
  EXPECT_EQ(totals.cells, 2u);
  EXPECT_EQ(totals.cells_shared, 1u);
  EXPECT_EQ(totals.tokens_generated, 1u);
  ASSERT_OK_AND_ASSIGN(const uint64_t recent, store_->CountResultsSince(b, At(4)));
  EXPECT_EQ(recent, 1u);
}

TEST_P(StoreContract, ACellIsFinishedOnceItsVerdictIsThere) {
  const std::string id = Create("a");
  AddCells(id, {"k1"});
  Put("w1", "k1");
  ASSERT_OK_AND_ASSIGN(auto unjudged, store_->UnjudgedCells("keyword", "v1", 10));
  ASSERT_THAT(unjudged, SizeIs(1));
  EXPECT_EQ(unjudged[0].result.text(), "answer to k1");
  EXPECT_EQ(unjudged[0].turns.at(0).text(), "say k1");
  ASSERT_OK_AND_ASSIGN(auto finished, store_->FinishedCells(id, 0));
  EXPECT_THAT(finished, IsEmpty());
  ASSERT_OK(store_->PutVerdicts({Verdict("k1")}, false));
  ASSERT_OK(store_->PutVerdicts({Verdict("k1", v1::VERDICT_LABEL_COMPLY)}, false));
  ASSERT_OK_AND_ASSIGN(unjudged, store_->UnjudgedCells("keyword", "v1", 10));
  EXPECT_THAT(unjudged, IsEmpty());
  ASSERT_OK_AND_ASSIGN(finished, store_->FinishedCells(id, 0));
  ASSERT_THAT(finished, SizeIs(1));
  EXPECT_EQ(finished[0].verdict.label(), v1::VERDICT_LABEL_REFUSE) << "the first verdict stays";
  ASSERT_OK_AND_ASSIGN(const v1::Verdict known, store_->FindVerdict("vk-k1"));
  EXPECT_EQ(known.label(), v1::VERDICT_LABEL_REFUSE);
  EXPECT_THAT(store_->FindVerdict("other"), StatusIs(absl::StatusCode::kNotFound));
}

TEST_P(StoreContract, AScoreCellNeedsNoVerdict) {
  const std::string id = Create("a");
  CellMember member = Member("k1");
  member.spec.set_kind(v1::CELL_KIND_SCORE);
  ASSERT_OK(store_->AddCells(id, 0, "s", {member}));
  Put("w1", "k1");
  ASSERT_OK_AND_ASSIGN(const auto unjudged, store_->UnjudgedCells("keyword", "v1", 10));
  EXPECT_THAT(unjudged, IsEmpty());
  ASSERT_OK_AND_ASSIGN(const auto finished, store_->FinishedCells(id, 0));
  EXPECT_THAT(finished, SizeIs(1));
}

TEST_P(StoreContract, CancellingTakesLeasedCellsBackUnlessAnotherStudyWantsThem) {
  const std::string a = Create("a");
  const std::string b = Create("b");
  AddCells(a, {"k1", "k2"});
  AddCells(b, {"k2"});
  ASSERT_OK(store_->GrantLease(Lease("l1", {"k1", "k2"})));
  ASSERT_OK(store_->CancelExperiment(a, At(2)));
  ASSERT_OK_AND_ASSIGN(auto leases, store_->LeasesOfWorker("w1"));
  ASSERT_THAT(leases, SizeIs(1));
  EXPECT_THAT(leases[0].cell_keys, ElementsAre("k2"));
  ASSERT_OK(store_->CancelExperiment(b, At(2)));
  ASSERT_OK_AND_ASSIGN(leases, store_->LeasesOfWorker("w1"));
  EXPECT_THAT(leases, IsEmpty());
  ASSERT_OK(store_->ResumeExperiment(a, At(3)));
  ASSERT_OK_AND_ASSIGN(const auto open, store_->OpenCells(a, "m", "c", At(3), 10));
  ASSERT_THAT(open, SizeIs(2));
  EXPECT_EQ(open[0].attempts, 0) << "a cancelled lease is no attempt";
}

TEST_P(StoreContract, ExpiredLeasesAreFoundByTime) {
  const std::string id = Create("a");
  AddCells(id, {"k1", "k2"});
  ASSERT_OK(store_->GrantLease(Lease("l1", {"k1"})));
  ASSERT_OK(store_->GrantLease(Lease("l2", {"k2"})));
  ASSERT_OK(store_->RenewLease("l2", At(90), 3));
  ASSERT_OK_AND_ASSIGN(const auto none, store_->ExpiredLeases(At(30)));
  EXPECT_THAT(none, IsEmpty());
  ASSERT_OK_AND_ASSIGN(const auto one, store_->ExpiredLeases(At(31)));
  ASSERT_THAT(one, SizeIs(1));
  EXPECT_EQ(one[0].lease_id, "l1");
  ASSERT_OK_AND_ASSIGN(const auto leases, store_->LeasesOfWorker("w1"));
  EXPECT_EQ(leases[1].resends, 3);
}

TEST_P(StoreContract, ACaptureIsAskedForOnceAndItsDigestKept) {
  const std::string id = Create("a");
  v1::CaptureTask task;
  task.set_capture_id("cap");
  task.set_model_digest("m");
  task.set_numerics_class_id("c");
  ASSERT_OK(store_->AddCapture(id, 0, task));
  ASSERT_OK(store_->AddCapture(id, 0, task));
  ASSERT_OK_AND_ASSIGN(auto open, store_->OpenCaptures("m", "c", At(0), 10));
  ASSERT_THAT(open, SizeIs(1));
  LeaseRecord lease = Lease("l1", {});
  lease.capture_id = "cap";
  ASSERT_OK(store_->GrantLease(lease));
  ASSERT_OK_AND_ASSIGN(open, store_->OpenCaptures("m", "c", At(0), 10));
  EXPECT_THAT(open, IsEmpty());
  WorkFailure away;
  away.kind = FailureKind::kReturned;
  away.max_attempts = 1;
  away.reason = "capture service away";
  ASSERT_OK(store_->FailCapture("l1", "cap", away).status());
  ASSERT_OK_AND_ASSIGN(CaptureRecord record, store_->GetCapture("cap"));
  EXPECT_EQ(record.state, WorkState::kOpen);
  EXPECT_EQ(record.reason, "capture service away");
  lease.lease_id = "l2";
  ASSERT_OK(store_->GrantLease(lease));
  ASSERT_OK(store_->PutCapture("cap", "digest", 12));
  Reopen();
  ASSERT_OK_AND_ASSIGN(record, store_->GetCapture("cap"));
  EXPECT_EQ(record.state, WorkState::kStored);
  EXPECT_EQ(record.digest, "digest");
  ASSERT_OK_AND_ASSIGN(const auto leases, store_->LeasesOfWorker("w1"));
  EXPECT_THAT(leases, IsEmpty());
}

TEST_P(StoreContract, APurgeTakesTextsAndLeavesTokensAndVerdicts) {
  const std::string id = Create("a");
  AddCells(id, {"k1"});
  Put("w1", "k1");
  ASSERT_OK(store_->PutVerdicts({Verdict("k1")}, false));
  EXPECT_THAT(store_->PurgeTexts(id), StatusIs(absl::StatusCode::kFailedPrecondition));
  ASSERT_OK(store_->CancelExperiment(id, At(1)));
  ASSERT_OK_AND_ASSIGN(const PurgeOutcome outcome, store_->PurgeTexts(id));
  EXPECT_EQ(outcome.texts_removed, 4u) << "an answer, a prompt of a cell, two prompts of the study";
  ASSERT_OK_AND_ASSIGN(const auto rows, store_->ListResults(id, "", "", 10, true));
  ASSERT_THAT(rows, SizeIs(1));
  EXPECT_EQ(rows[0].result.text(), "");
  EXPECT_EQ(rows[0].spec.turns_size(), 0);
  EXPECT_THAT(rows[0].result.token_ids(), ElementsAre(7));
  EXPECT_EQ(rows[0].verdict.label(), v1::VERDICT_LABEL_REFUSE);
  EXPECT_THAT(store_->ResumeExperiment(id, At(3)),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("purged")));
  ASSERT_OK_AND_ASSIGN(const auto left, store_->ExperimentsToPurge(At(100)));
  EXPECT_THAT(left, IsEmpty());
}

TEST_P(StoreContract, APurgeSparesWhatAnotherStudyHolds) {
  const std::string a = Create("a");
  const std::string b = Create("b");
  AddCells(a, {"k1", "k2"});
  AddCells(b, {"k1"});
  Put("w1", "k1");
  Put("w1", "k2");
  ASSERT_OK(store_->CancelExperiment(a, At(1)));
  ASSERT_OK_AND_ASSIGN(const auto old, store_->ExperimentsToPurge(At(2)));
  EXPECT_THAT(old, ElementsAre(a));
  ASSERT_OK_AND_ASSIGN(const PurgeOutcome outcome, store_->PurgeExperiment(a));
  EXPECT_EQ(outcome.cells_removed, 1u);
  EXPECT_THAT(store_->GetExperiment(a), StatusIs(absl::StatusCode::kNotFound));
  ASSERT_OK_AND_ASSIGN(const auto rows, store_->ListResults(b, "", "", 10, true));
  ASSERT_THAT(rows, SizeIs(1));
  EXPECT_EQ(rows[0].result.text(), "answer to k1");
}

TEST_P(StoreContract, VerdictsOnlyDropsTheTextOnceJudged) {
  const std::string id = Create("a");
  AddCells(id, {"k1"});
  Put("w1", "k1");
  ASSERT_OK(store_->PutVerdicts({Verdict("k1")}, /*drop_texts=*/true));
  ASSERT_OK_AND_ASSIGN(const auto rows, store_->ListResults(id, "", "", 10, true));
  EXPECT_EQ(rows.at(0).result.text(), "");
  EXPECT_TRUE(rows[0].has_verdict);
}

TEST_P(StoreContract, ResultsArePagedByKeyAndCondition) {
  const std::string id = Create("a");
  ASSERT_OK(
      store_->AddCells(id, 0, "s", {Member("k2", "x"), Member("k1", "y"), Member("k1", "x")}));
  std::vector<std::string> seen;
  std::string key;
  std::string condition;
  while (true) {
    ASSERT_OK_AND_ASSIGN(const auto rows, store_->ListResults(id, key, condition, 1, false));
    if (rows.empty()) break;
    key = rows[0].cell_key;
    condition = rows[0].condition;
    seen.push_back(absl::StrCat(key, condition));
  }
  EXPECT_THAT(seen, ElementsAre("k1x", "k1y", "k2x"));
}

INSTANTIATE_TEST_SUITE_P(Implementations, StoreContract,
                         ::testing::Values(Implementation{
                             "Sqlite", [] { return std::make_unique<SqliteBackend>(); }}),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace plumbline
