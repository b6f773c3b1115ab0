// Experiments over gRPC.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <vector>

#include "plumbline/v1/experiments.grpc.pb.h"
#include "services/common/clock.h"
#include "services/coordinator/change_signal.h"
#include "services/coordinator/grpc_peers.h"
#include "services/coordinator/judge_client.h"
#include "services/coordinator/model_directory.h"
#include "services/coordinator/prompt_loader.h"
#include "services/coordinator/study_logic.h"
#include "services/report/report.h"
#include "services/store/store.h"

namespace plumbline {

using ReportRenderer = std::function<absl::StatusOr<std::vector<ReportFile>>(
    const v1::Report&, v1::ReportFormat, bool show_texts)>;

// Nothing is owned.
struct ExperimentsDeps {
  Store* store = nullptr;
  const StudyLogic* logic = nullptr;
  const PromptLoader* prompts = nullptr;
  const ModelDirectory* directory = nullptr;
  CoordinatorPeers* peers = nullptr;
  JudgeClient* judge = nullptr;
  Clock* clock = nullptr;
  ChangeSignal* changed = nullptr;
  ReportRenderer render;
};

class ExperimentsService final : public v1::Experiments::Service {
 public:
  explicit ExperimentsService(ExperimentsDeps deps) : deps_(std::move(deps)) {}

  // Running watches end with Unavailable, so that a drain does not wait for them.
  void EndWatches();

  grpc::Status CreateExperiment(grpc::ServerContext* context,
                                const v1::CreateExperimentRequest* request,
                                v1::CreateExperimentResponse* response) override;
  grpc::Status GetExperiment(grpc::ServerContext* context, const v1::GetExperimentRequest* request,
                             v1::GetExperimentResponse* response) override;
  grpc::Status ListExperiments(grpc::ServerContext* context,
                               const v1::ListExperimentsRequest* request,
                               v1::ListExperimentsResponse* response) override;
  grpc::Status WatchExperiment(grpc::ServerContext* context,
                               const v1::WatchExperimentRequest* request,
                               grpc::ServerWriter<v1::WatchExperimentResponse>* writer) override;
  grpc::Status CancelExperiment(grpc::ServerContext* context,
                                const v1::CancelExperimentRequest* request,
                                v1::CancelExperimentResponse* response) override;
  grpc::Status ResumeExperiment(grpc::ServerContext* context,
                                const v1::ResumeExperimentRequest* request,
                                v1::ResumeExperimentResponse* response) override;
  grpc::Status ListResults(grpc::ServerContext* context, const v1::ListResultsRequest* request,
                           grpc::ServerWriter<v1::ListResultsResponse>* writer) override;
  grpc::Status GetReport(grpc::ServerContext* context, const v1::GetReportRequest* request,
                         grpc::ServerWriter<v1::GetReportResponse>* writer) override;
  grpc::Status ExportPlan(grpc::ServerContext* context, const v1::ExportPlanRequest* request,
                          v1::ExportPlanResponse* response) override;
  grpc::Status CheckGate(grpc::ServerContext* context, const v1::CheckGateRequest* request,
                         v1::CheckGateResponse* response) override;
  grpc::Status PurgeExperiment(grpc::ServerContext* context,
                               const v1::PurgeExperimentRequest* request,
                               v1::PurgeExperimentResponse* response) override;
  grpc::Status EstimateStudy(grpc::ServerContext* context, const v1::EstimateStudyRequest* request,
                             v1::EstimateStudyResponse* response) override;

 private:
  absl::StatusOr<v1::Experiment> View(const std::string& id) const;
  absl::StatusOr<v1::Experiment> Create(const v1::CreateExperimentRequest& request);
  absl::Status CheckModel(const v1::Study& study, bool may_wait) const;
  absl::Status CheckJudge(const v1::Study& study) const;
  absl::StatusOr<v1::EstimateStudyResponse> Estimate(const v1::Study& study) const;
  absl::StatusOr<v1::PurgeExperimentResponse> Purge(const v1::PurgeExperimentRequest& request);
  absl::Status StreamResults(const v1::ListResultsRequest& request, grpc::ServerContext* context,
                             grpc::ServerWriter<v1::ListResultsResponse>* writer) const;
  absl::Status StreamReport(const v1::GetReportRequest& request,
                            grpc::ServerWriter<v1::GetReportResponse>* writer) const;
  absl::StatusOr<v1::Report> MeasuredReport(const std::string& id) const;

  const ExperimentsDeps deps_;
  std::atomic<bool> ending_ = false;
};

}  // namespace plumbline
