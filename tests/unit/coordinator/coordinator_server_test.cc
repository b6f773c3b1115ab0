// The whole coordinator over gRPC: its services, a worker that dials in, and judge, capture and pcr
// as real servers on loopback.
#include <grpcpp/grpcpp.h>

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "plumbline/v1/capture.grpc.pb.h"
#include "plumbline/v1/judge.grpc.pb.h"
#include "plumbline/v1/pcr.grpc.pb.h"
#include "services/coordinator/coordinator.h"
#include "services/rpc/status.h"
#include "services/store/sqlite/sqlite_store.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/coordinator/fakes.h"

namespace plumbline {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::IsOk;
using ::testing::Not;
using testing::StatusIs;

class JudgeServer final : public v1::RefusalJudge::Service {
  grpc::Status Judge(
      grpc::ServerContext* context,
      grpc::ServerReaderWriter<v1::JudgeResponse, v1::JudgeRequest>* stream) override {
    v1::JudgeRequest request;
    testing::FakeJudge judge;
    while (stream->Read(&request)) {
      v1::JudgeResponse response;
      response.set_key(request.key());
      *response.mutable_verdict() = judge.Judge({request})->at(0);
      stream->Write(response);
    }
    return grpc::Status::OK;
  }
  grpc::Status ListJudges(grpc::ServerContext* context, const v1::ListJudgesRequest* request,
                          v1::ListJudgesResponse* response) override {
    *response->add_judges() = testing::FakeJudge().ListJudges()->at(0);
    return grpc::Status::OK;
  }
};

class CaptureServer final : public v1::ActivationCapture::Service {
  grpc::Status GetStats(grpc::ServerContext* context, const v1::GetStatsRequest* request,
                        v1::GetStatsResponse* response) override {
    response->set_capture_digest("digest of " + request->capture());
    return grpc::Status::OK;
  }
  grpc::Status DeleteCapture(grpc::ServerContext* context, const v1::DeleteCaptureRequest* request,
                             v1::DeleteCaptureResponse* response) override {
    ++deleted;
    return grpc::Status::OK;
  }

 public:
  std::atomic<int> deleted = 0;
};

class PcrServer final : public v1::PcrClassifier::Service {
  grpc::Status Classify(grpc::ServerContext* context, const v1::ClassifyRequest* request,
                        v1::ClassifyResponse* response) override {
    response->set_mode(v1::FAILURE_MODE_MIXED);
    return grpc::Status::OK;
  }
};

std::unique_ptr<grpc::Server> ServeOnLoopback(const std::vector<grpc::Service*>& services,
                                              int* port) {
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), port);
  for (grpc::Service* service : services) builder.RegisterService(service);
  return builder.BuildAndStart();
}

// Syncs, runs and reports until it is destroyed.
class WorkerThread {
 public:
  explicit WorkerThread(std::shared_ptr<grpc::Channel> channel)
      : stub_(v1::Work::NewStub(channel)), worker_("w", nullptr), thread_([this] { Run(); }) {}
  ~WorkerThread() {
    stopping_ = true;
    thread_.join();
  }
  std::map<std::string, int> runs() {
    std::lock_guard<std::mutex> lock(mutex_);
    return worker_.runs;
  }

 private:
  void Run() {
    while (!stopping_) {
      {
        std::lock_guard<std::mutex> lock(mutex_);
        grpc::ClientContext sync_context;
        v1::SyncResponse response;
        if (stub_->Sync(&sync_context, worker_.MakeSync(), &response).ok()) {
          worker_.Apply(response);
        }
        const v1::ReportRequest report = worker_.Run(3);
        if (!report.lease_id().empty()) {
          grpc::ClientContext context;
          v1::ReportResponse taken;
          if (stub_->Report(&context, report, &taken).ok()) worker_.ReportTaken(report);
        }
      }
      Clock::Real()->SleepFor(absl::Milliseconds(5));  // a worker's pause between calls
    }
  }

  const std::unique_ptr<v1::Work::Stub> stub_;
  std::mutex mutex_;
  testing::FakeWorker worker_;
  std::atomic<bool> stopping_ = false;
  std::thread thread_;
};

class CoordinatorServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    int port = 0;
    peers_ = ServeOnLoopback({&judge_, &capture_, &pcr_}, &port);
    const std::string address = absl::StrCat("127.0.0.1:", port);
    config_.mutable_judge()->set_address(address);
    config_.mutable_capture()->set_address(address);
    config_.mutable_quantsim()->set_address(address);
    config_.mutable_pcr()->set_address(address);
    config_.set_audit_fraction(1e-12);
    CoordinatorParts parts;
    parts.store = *OpenSqliteStore({.path = ":memory:"});
    parts.logic = std::make_unique<testing::FakeLogic>();
    parts.render = [](const v1::Report& report, v1::ReportFormat format,
                      bool show_texts) -> absl::StatusOr<std::vector<ReportFile>> {
      return std::vector<ReportFile>{{"report.txt", report.DebugString()},
                                     {"empty.csv", ""},
                                     {"large.bin", std::string(700 << 10, 'x')}};
    };
    auto coordinator = Coordinator::Create(config_, std::move(parts));
    ASSERT_THAT(coordinator, IsOk());
    coordinator_ = *std::move(coordinator);
    server_ = ServeOnLoopback({coordinator_->experiments(), coordinator_->work()}, &port_);
    channel_ =
        grpc::CreateChannel(absl::StrCat("127.0.0.1:", port_), grpc::InsecureChannelCredentials());
    stub_ = v1::Experiments::NewStub(channel_);
  }

  void TearDown() override {
    if (server_ != nullptr) server_->Shutdown();
    peers_->Shutdown();
  }

  static v1::CreateExperimentRequest Request(const std::string& request_id, int prompts = 6) {
    v1::CreateExperimentRequest request;
    request.set_request_id(request_id);
    request.mutable_study()->set_model("tiny");
    v1::PromptSetRef* set = request.mutable_study()->add_prompt_sets();
    set->set_name("mine");
    for (int i = 0; i < prompts; ++i) {
      v1::Prompt* prompt = set->add_inline_prompts();
      prompt->set_id(absl::StrCat("p", i));
      v1::ChatTurn* turn = prompt->add_turns();
      turn->set_role(v1::ROLE_USER);
      turn->set_text(absl::StrCat("prompt text ", i));
    }
    return request;
  }

  absl::StatusOr<v1::Experiment> Create(const v1::CreateExperimentRequest& request) {
    grpc::ClientContext context;
    v1::CreateExperimentResponse response;
    const grpc::Status status = stub_->CreateExperiment(&context, request, &response);
    if (!status.ok()) return FromGrpcStatus(status);
    return response.experiment();
  }

  // Follows the experiment to its end.
  v1::Experiment Watch(const std::string& id) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(120)));
    v1::WatchExperimentRequest request;
    request.set_id(id);
    auto reader = stub_->WatchExperiment(&context, request);
    v1::WatchExperimentResponse response;
    int seen = 0;
    while (reader->Read(&response)) ++seen;
    EXPECT_THAT(FromGrpcStatus(reader->Finish()), IsOk());
    EXPECT_GE(seen, 1);
    return response.experiment();
  }

  std::vector<v1::ListResultsResponse> Results(const std::string& id, bool texts) {
    grpc::ClientContext context;
    v1::ListResultsRequest request;
    request.set_id(id);
    request.set_include_texts(texts);
    auto reader = stub_->ListResults(&context, request);
    std::vector<v1::ListResultsResponse> rows;
    v1::ListResultsResponse row;
    while (reader->Read(&row)) rows.push_back(row);
    EXPECT_THAT(FromGrpcStatus(reader->Finish()), IsOk());
    return rows;
  }

  absl::Status Report(const std::string& id, bool texts,
                      std::map<std::string, std::string>* files) {
    grpc::ClientContext context;
    v1::GetReportRequest request;
    request.set_id(id);
    request.set_show_texts(texts);
    auto reader = stub_->GetReport(&context, request);
    v1::GetReportResponse chunk;
    std::string name;
    while (reader->Read(&chunk)) {
      if (!chunk.file_name().empty()) name = chunk.file_name();
      (*files)[name] += chunk.chunk();
    }
    return FromGrpcStatus(reader->Finish());
  }

  JudgeServer judge_;
  CaptureServer capture_;
  PcrServer pcr_;
  v1::CoordinatorConfig config_;
  std::unique_ptr<grpc::Server> peers_;
  std::unique_ptr<Coordinator> coordinator_;
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Experiments::Stub> stub_;
};

TEST_F(CoordinatorServerTest, AStudyRunsFromCreateToReport) {
  ASSERT_OK_AND_ASSIGN(const v1::Experiment created, Create(Request("r1", 12)));
  EXPECT_EQ(created.state(), v1::EXPERIMENT_STATE_PENDING);
  EXPECT_EQ(created.study().prompt_sets(0).inline_prompts_size(), 0);
  WorkerThread worker(channel_);
  const v1::Experiment ended = Watch(created.id());
  ASSERT_EQ(ended.state(), v1::EXPERIMENT_STATE_SUCCEEDED) << ended.message();
  ASSERT_EQ(ended.stages_size(), 4);
  for (const v1::StageProgress& stage : ended.stages()) {
    EXPECT_TRUE(stage.finished()) << stage.stage();
    EXPECT_EQ(stage.cells_done(), stage.cells_total()) << stage.stage();
  }
  EXPECT_EQ(ended.stages(0).cells_total(), 12u);
  for (const auto& [key, runs] : worker.runs()) EXPECT_EQ(runs, 1) << key;

  const auto rows = Results(created.id(), false);
  EXPECT_EQ(rows.size(), ended.stages(0).cells_total() + ended.stages(1).cells_total());
  for (const auto& row : rows) {
    EXPECT_EQ(row.spec().turns_size(), 0);
    EXPECT_EQ(row.result().text(), "");
    EXPECT_NE(row.verdict().label(), v1::VERDICT_LABEL_UNSPECIFIED);
  }
  EXPECT_THAT(Results(created.id(), true)[0].result().text(), Not(IsEmpty()));

  std::map<std::string, std::string> files;
  ASSERT_OK(Report(created.id(), false, &files));
  EXPECT_EQ(files.size(), 3u);
  EXPECT_EQ(files["large.bin"].size(), 700u << 10);
  EXPECT_THAT(files["report.txt"], HasSubstr("FAILURE_MODE_MIXED"));
  EXPECT_THAT(files["report.txt"], HasSubstr("digest of capture-"));
  EXPECT_THAT(files["report.txt"], Not(HasSubstr("prompt text")));
  files.clear();
  ASSERT_OK(Report(created.id(), true, &files));
  EXPECT_THAT(files["report.txt"], HasSubstr("prompt text"));

  v1::CheckGateRequest gate;  // without a limit, so the study's own holds
  gate.set_id(created.id());
  grpc::ClientContext context;
  v1::CheckGateResponse decided;
  ASSERT_OK(FromGrpcStatus(stub_->CheckGate(&context, gate, &decided)));
  EXPECT_EQ(decided.decision(), v1::GATE_DECISION_PASS);
}

TEST_F(CoordinatorServerTest, AModelThatNoWorkerHasIsRefusedWhereOthersAreAtHand) {
  v1::CreateExperimentRequest early = Request("early");
  early.mutable_study()->set_model("tony");
  ASSERT_OK_AND_ASSIGN(const v1::Experiment waiting, Create(early));  // nobody can know
  WorkerThread worker(channel_);
  ASSERT_OK_AND_ASSIGN(const v1::Experiment known, Create(Request("known")));
  EXPECT_EQ(Watch(known.id()).state(), v1::EXPERIMENT_STATE_SUCCEEDED);
  v1::CreateExperimentRequest mistyped = Request("mistyped");
  mistyped.mutable_study()->set_model("tony");
  EXPECT_THAT(Create(mistyped), StatusIs(absl::StatusCode::kInvalidArgument,
                                         AllOf(HasSubstr("'tony'"), HasSubstr("offer tiny ("),
                                               HasSubstr("--wait-for-model"))));
  mistyped.set_wait_for_model(true);
  ASSERT_OK_AND_ASSIGN(const v1::Experiment asked, Create(mistyped));
  EXPECT_EQ(asked.state(), v1::EXPERIMENT_STATE_PENDING);
  // The same request again is the same experiment, whoever is connected by then.
  ASSERT_OK_AND_ASSIGN(const v1::Experiment again, Create(early));
  EXPECT_EQ(again.id(), waiting.id());
}

TEST_F(CoordinatorServerTest, CreateIsIdempotentAndChecksWhatItIsGiven) {
  ASSERT_OK_AND_ASSIGN(const v1::Experiment first, Create(Request("r1")));
  ASSERT_OK_AND_ASSIGN(const v1::Experiment again, Create(Request("r1")));
  EXPECT_EQ(first.id(), again.id());
  EXPECT_THAT(Create(Request("r1", 7)), StatusIs(absl::StatusCode::kAlreadyExists));
  EXPECT_THAT(Create(Request("")),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("request_id")));
  v1::CreateExperimentRequest bad = Request("r2");
  bad.mutable_study()->set_flip_limit(2);
  EXPECT_THAT(Create(bad), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("got 2")));
  bad = Request("r3");
  bad.mutable_study()->mutable_prompt_sets(0)->mutable_inline_prompts(1)->set_id("p0");
  EXPECT_THAT(Create(bad), StatusIs(absl::StatusCode::kInvalidArgument,
                                    HasSubstr("prompt_sets[0].inline_prompts[1].id 'p0'")));
  bad = Request("r4");
  bad.mutable_study()->mutable_prompt_sets(0)->mutable_inline_prompts(0)->clear_turns();
  EXPECT_THAT(Create(bad), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("user turn")));
  bad = Request("r5");
  bad.mutable_study()->mutable_prompt_sets(0)->clear_inline_prompts();
  EXPECT_THAT(Create(bad), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("mine")));
}

TEST_F(CoordinatorServerTest, AJudgeThatIsNotThereIsRefusedWithThoseThatAre) {
  v1::CreateExperimentRequest request = Request("r1");
  request.mutable_study()->set_judge("oracle");
  EXPECT_THAT(Create(request), StatusIs(absl::StatusCode::kInvalidArgument,
                                        AllOf(HasSubstr("'oracle'"), HasSubstr("keyword"))));
  grpc::ClientContext context;
  v1::ListExperimentsResponse listed;
  ASSERT_OK(
      FromGrpcStatus(stub_->ListExperiments(&context, v1::ListExperimentsRequest(), &listed)));
  EXPECT_EQ(listed.experiments_size(), 0);
}

TEST_F(CoordinatorServerTest, AModelNameThatTwoModelsHaveIsRefused) {
  testing::FakeWorker worker("w", nullptr);
  v1::SyncRequest sync = worker.MakeSync();
  v1::ModelInfo* twin = sync.mutable_capabilities()->add_models();
  *twin = testing::TestModel();
  twin->set_model_digest("fedcba9876543210");
  v1::SyncResponse synced;
  grpc::ClientContext context;
  ASSERT_OK(FromGrpcStatus(v1::Work::NewStub(channel_)->Sync(&context, sync, &synced)));
  EXPECT_THAT(Create(Request("r1")),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("fedcba987654")));
}

TEST_F(CoordinatorServerTest, WithTheJudgeAwayAStudyIsTakenAndItsRepetitionToo) {
  peers_->Shutdown();
  ASSERT_OK_AND_ASSIGN(const v1::Experiment created, Create(Request("r1")));
  ASSERT_OK_AND_ASSIGN(const v1::Experiment again, Create(Request("r1")));
  EXPECT_EQ(created.id(), again.id());
}

TEST_F(CoordinatorServerTest, AWorkerWithNothingToDoIsAnsweredWhenThereIsWork) {
  testing::FakeWorker worker("w", nullptr);
  const auto work = v1::Work::NewStub(channel_);
  const auto sync = [&](uint32_t free_cells) {
    grpc::ClientContext context;
    v1::SyncResponse response;
    EXPECT_THAT(FromGrpcStatus(work->Sync(&context, worker.MakeSync(free_cells), &response)),
                IsOk());
    return response;
  };
  const auto call_again = [](const v1::SyncResponse& response) {
    return absl::Seconds(response.call_again_within().seconds()) +
           absl::Nanoseconds(response.call_again_within().nanos());
  };
  // Without room there is nothing to wait for.
  EXPECT_GT(call_again(sync(0)), absl::Seconds(1));
  const absl::Time begun = absl::Now();
  const v1::SyncResponse idle = sync(8);
  EXPECT_GE(absl::Now() - begun, absl::Milliseconds(200));
  EXPECT_THAT(idle.start(), IsEmpty());
  EXPECT_LT(call_again(idle), absl::Milliseconds(100));

  // A call that comes before the work does is answered with it.
  v1::SyncResponse waiting;
  std::atomic<bool> given_up = false;
  std::thread caller([&] {
    while (waiting.start().empty() && !given_up) waiting = sync(8);
  });
  const auto created = Create(Request("r"));
  given_up = !created.ok();
  caller.join();
  ASSERT_THAT(created, IsOk());
  EXPECT_FALSE(waiting.start(0).cells().empty());
}

TEST_F(CoordinatorServerTest, UnknownIdsAndForeignPageTokensAreErrors) {
  grpc::ClientContext get_context;
  v1::GetExperimentRequest get;
  get.set_id("exp-nope");
  v1::GetExperimentResponse got;
  EXPECT_THAT(FromGrpcStatus(stub_->GetExperiment(&get_context, get, &got)),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("exp-nope")));
  grpc::ClientContext list_context;
  v1::ListExperimentsRequest list;
  list.set_page_token("mine");
  v1::ListExperimentsResponse listed;
  EXPECT_THAT(FromGrpcStatus(stub_->ListExperiments(&list_context, list, &listed)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("mine")));
}

TEST_F(CoordinatorServerTest, ListsArePagedNewestFirst) {
  for (int i = 0; i < 5; ++i) ASSERT_OK(Create(Request(absl::StrCat("r", i))).status());
  std::vector<std::string> seen;
  std::string token;
  do {
    grpc::ClientContext context;
    v1::ListExperimentsRequest request;
    request.set_page_size(2);
    request.set_page_token(token);
    v1::ListExperimentsResponse response;
    ASSERT_OK(FromGrpcStatus(stub_->ListExperiments(&context, request, &response)));
    for (const v1::Experiment& e : response.experiments()) seen.push_back(e.request_id());
    token = response.next_page_token();
  } while (!token.empty());
  EXPECT_THAT(seen, ::testing::ElementsAre("r4", "r3", "r2", "r1", "r0"));
}

TEST_F(CoordinatorServerTest, NothingIsReportedBeforeTheFirstStageAndACancelledStudyCanBePurged) {
  ASSERT_OK_AND_ASSIGN(const v1::Experiment created, Create(Request("r1")));
  std::map<std::string, std::string> files;
  EXPECT_THAT(Report(created.id(), false, &files), StatusIs(absl::StatusCode::kFailedPrecondition));
  v1::PurgeExperimentRequest purge;
  purge.set_id(created.id());
  purge.set_everything(true);
  v1::PurgeExperimentResponse purged;
  {
    grpc::ClientContext context;
    EXPECT_THAT(FromGrpcStatus(stub_->PurgeExperiment(&context, purge, &purged)),
                StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("cancel")));
  }
  grpc::ClientContext cancel_context;
  v1::CancelExperimentRequest cancel;
  cancel.set_id(created.id());
  v1::CancelExperimentResponse cancelled;
  ASSERT_OK(FromGrpcStatus(stub_->CancelExperiment(&cancel_context, cancel, &cancelled)));
  EXPECT_EQ(cancelled.experiment().state(), v1::EXPERIMENT_STATE_CANCELLED);
  EXPECT_EQ(Watch(created.id()).state(), v1::EXPERIMENT_STATE_CANCELLED);
  grpc::ClientContext context;
  ASSERT_OK(FromGrpcStatus(stub_->PurgeExperiment(&context, purge, &purged)));
  EXPECT_EQ(purged.texts_removed(), 6u);
}

TEST_F(CoordinatorServerTest, AWatchHonoursItsDeadlineAndEndsWithTheService) {
  ASSERT_OK_AND_ASSIGN(const v1::Experiment created, Create(Request("r1")));
  v1::WatchExperimentRequest request;
  request.set_id(created.id());
  v1::WatchExperimentResponse response;
  {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Milliseconds(300)));
    auto reader = stub_->WatchExperiment(&context, request);
    while (reader->Read(&response)) {
    }
    EXPECT_THAT(FromGrpcStatus(reader->Finish()), StatusIs(absl::StatusCode::kDeadlineExceeded));
  }
  grpc::ClientContext context;
  auto reader = stub_->WatchExperiment(&context, request);
  ASSERT_TRUE(reader->Read(&response));
  coordinator_->experiments()->EndWatches();
  while (reader->Read(&response)) {
  }
  EXPECT_THAT(FromGrpcStatus(reader->Finish()), StatusIs(absl::StatusCode::kUnavailable));
}

TEST_F(CoordinatorServerTest, AnEstimateNeedsAWorkerAndStoresNothing) {
  v1::EstimateStudyRequest request;
  *request.mutable_study() = Request("r").study();
  v1::EstimateStudyResponse response;
  {
    grpc::ClientContext context;
    EXPECT_THAT(FromGrpcStatus(stub_->EstimateStudy(&context, request, &response)),
                StatusIs(absl::StatusCode::kUnavailable, HasSubstr("tiny")));
  }
  testing::FakeWorker worker("w", nullptr);
  v1::SyncRequest sync = worker.MakeSync();
  sync.mutable_capabilities()->set_tokens_per_second(48);
  v1::SyncResponse synced;
  grpc::ClientContext sync_context;
  ASSERT_OK(FromGrpcStatus(v1::Work::NewStub(channel_)->Sync(&sync_context, sync, &synced)));
  grpc::ClientContext context;
  ASSERT_OK(FromGrpcStatus(stub_->EstimateStudy(&context, request, &response)));
  EXPECT_EQ(response.cells_at_most(), 24u);
  EXPECT_EQ(response.seconds_estimated(), 4);
  grpc::ClientContext list_context;
  v1::ListExperimentsResponse listed;
  ASSERT_OK(
      FromGrpcStatus(stub_->ListExperiments(&list_context, v1::ListExperimentsRequest(), &listed)));
  EXPECT_EQ(listed.experiments_size(), 0);
}

}  // namespace
}  // namespace plumbline
