#include "tests/contract/store_contract.h"

#include <unistd.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "services/store/sqlite/sqlite_store.h"
#include "tests/support/status_matchers.h"

namespace plumbline::testing {
namespace {

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

}  // namespace

void StoreContract::SetUp() {
  backend_ = GetParam().make();
  Reopen();
}

void StoreContract::Reopen() {
  store_.reset();
  auto store = backend_->Open();
  ASSERT_THAT(store, IsOk());
  store_ = *std::move(store);
}

NewExperiment StoreContract::Study(const std::string& name, int prompts) {
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

std::string StoreContract::Create(const std::string& name, bool bind) {
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

CellMember StoreContract::Member(const std::string& key, const std::string& condition) {
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

void StoreContract::AddCells(const std::string& id, const std::vector<std::string>& keys) {
  std::vector<CellMember> members;
  for (const std::string& key : keys) {
    members.push_back(Member(key));
    members.back().position = static_cast<int64_t>(members.size());
  }
  ASSERT_OK(store_->AddCells(id, 0, "baseline", members));
}

std::vector<std::string> StoreContract::OpenKeys(const std::string& id, int limit, int at) {
  auto cells = store_->OpenCells(id, "m", "c", At(at), limit);
  EXPECT_THAT(cells, IsOk());
  std::vector<std::string> keys;
  for (const OpenCell& cell : *cells) keys.push_back(cell.cell_key);
  return keys;
}

LeaseRecord StoreContract::Lease(const std::string& lease_id, const std::vector<std::string>& keys,
                                 const std::string& worker) {
  LeaseRecord lease;
  lease.lease_id = lease_id;
  lease.worker_id = worker;
  lease.incarnation_id = "i1";
  lease.expires = At(30);
  lease.cell_keys = keys;
  return lease;
}

NewResult StoreContract::Result(const std::string& key, const std::string& digest) {
  NewResult result;
  result.result.set_cell_key(key);
  result.result.set_text("answer to " + key);
  result.result.add_token_ids(7);
  result.result.set_finish_reason(v1::FINISH_REASON_EOS);
  result.digest = digest;
  return result;
}

PutOutcome StoreContract::Put(const std::string& worker, const std::string& key,
                              const std::string& digest, const std::string& lease) {
  auto outcomes = store_->PutResults(worker, lease, {Result(key, digest)}, At(5));
  EXPECT_THAT(outcomes, IsOk());
  return outcomes->at(0).outcome;
}

NewVerdict StoreContract::Verdict(const std::string& key, v1::VerdictLabel label) {
  NewVerdict verdict;
  verdict.cell_key = key;
  verdict.verdict_key = "vk-" + key;
  verdict.verdict.set_label(label);
  verdict.verdict.set_judge("keyword");
  verdict.verdict.set_judge_version("v1");
  return verdict;
}

v1::CaptureTask StoreContract::Capture(const std::string& capture_id) {
  v1::CaptureTask task;
  task.set_capture_id(capture_id);
  task.set_model_digest("m");
  task.set_numerics_class_id("c");
  return task;
}

INSTANTIATE_TEST_SUITE_P(Implementations, StoreContract,
                         ::testing::Values(Implementation{
                             "Sqlite", [] { return std::unique_ptr<Backend>(new SqliteBackend); }}),
                         [](const auto& info) { return info.param.name; });

}  // namespace plumbline::testing
