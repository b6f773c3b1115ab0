#include "services/coordinator/experiments_service.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "services/common/digest.h"
#include "services/common/logging.h"
#include "services/common/status_macros.h"
#include "services/coordinator/experiment_view.h"
#include "services/coordinator/find_judge.h"
#include "services/rpc/status.h"

namespace plumbline {
namespace {

constexpr size_t kMaxRequestIdBytes = 128;
constexpr uint32_t kDefaultPage = 50;
constexpr uint32_t kLargestPage = 500;

// What a retry must repeat to be the same request.
std::string StudyDigest(const v1::Study& study) {
  return DigestBuilder("plumbline study/1").Add("study", study.SerializeAsString()).Finish();
}

template <typename Response, typename Result>
grpc::Status Answer(absl::StatusOr<Result> result, Response* response) {
  if (!result.ok()) return ToGrpcStatus(result.status());
  if constexpr (std::is_same_v<Response, Result>) {
    *response = *std::move(result);
  } else {
    *response->mutable_experiment() = *std::move(result);
  }
  return grpc::Status::OK;
}

}  // namespace

void ExperimentsService::EndWatches() {
  ending_ = true;
  deps_.changed->Notify();
}

absl::StatusOr<v1::Experiment> ExperimentsService::View(const std::string& id) const {
  PLUMB_ASSIGN_OR_RETURN(const ExperimentRecord record, deps_.store->GetExperiment(id));
  return ViewOf(deps_.store, *deps_.logic, *deps_.directory, deps_.clock, record);
}

// A name that none of the models at hand has is most likely mistyped: such a study would wait for
// ever. A model that nobody can know yet is checked when a worker brings it.
absl::Status ExperimentsService::CheckModel(const v1::Study& study, bool may_wait) const {
  const auto model = deps_.directory->Resolve(study.model());
  if (model.ok()) return deps_.logic->Fits(study, *model);
  if (!absl::IsNotFound(model.status())) return model.status();
  if (may_wait || !deps_.directory->OfferModels()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(model.status().message(),
                   "; name one of these, or let the study wait until a worker has it "
                   "(--wait-for-model)"));
}

absl::Status ExperimentsService::CheckJudge(const v1::Study& study) const {
  const absl::Status found = FindJudge(*deps_.judge, study.judge()).status();
  // With the judge away the study waits for it and is checked then.
  return absl::IsUnavailable(found) ? absl::OkStatus() : found;
}

absl::StatusOr<v1::Experiment> ExperimentsService::Create(
    const v1::CreateExperimentRequest& request) {
  const std::string& request_id = request.request_id();
  if (request_id.empty() || request_id.size() > kMaxRequestIdBytes) {
    return absl::InvalidArgumentError(absl::StrCat("request_id must have 1..", kMaxRequestIdBytes,
                                                   " characters, has ", request_id.size()));
  }
  NewExperiment experiment;
  PLUMB_ASSIGN_OR_RETURN(experiment.study, deps_.logic->Normalize(request.study()));
  PLUMB_ASSIGN_OR_RETURN(ExperimentPrompts prompts, deps_.prompts->Load(experiment.study));
  // The prompts have a table of their own: every view and report would carry them along otherwise.
  for (v1::PromptSetRef& set : *experiment.study.mutable_prompt_sets()) set.clear_inline_prompts();
  const auto stages = deps_.logic->Stages(experiment.study);
  if (stages.empty()) return absl::InvalidArgumentError("study: its kind has no stages");
  experiment.request_id = request_id;
  experiment.request_digest = StudyDigest(request.study());
  experiment.id = absl::StrCat("exp-", Sha256Hex(request_id).substr(0, 12));
  experiment.prompts = std::move(prompts.prompts);
  experiment.prompt_sets = std::move(prompts.prompt_sets);
  experiment.first_stage = stages[0]->name();
  // Asking again for a study that is there must not depend on the workers and the judge of today.
  const bool known = deps_.store->GetExperiment(experiment.id).ok();
  PLUMB_RETURN_IF_ERROR(CheckModel(experiment.study, known || request.wait_for_model()));
  if (!known) PLUMB_RETURN_IF_ERROR(CheckJudge(experiment.study));
  experiment.now = deps_.clock->Now();
  PLUMB_ASSIGN_OR_RETURN(const ExperimentRecord record, deps_.store->CreateExperiment(experiment));
  spdlog::info("experiment {}: {} prompts, {} stages", record.id, experiment.prompts.size(),
               stages.size());
  deps_.changed->Notify();
  return ViewOf(deps_.store, *deps_.logic, *deps_.directory, deps_.clock, record);
}

grpc::Status ExperimentsService::CreateExperiment(grpc::ServerContext* context,
                                                  const v1::CreateExperimentRequest* request,
                                                  v1::CreateExperimentResponse* response) {
  return Answer(Create(*request), response);
}

grpc::Status ExperimentsService::GetExperiment(grpc::ServerContext* context,
                                               const v1::GetExperimentRequest* request,
                                               v1::GetExperimentResponse* response) {
  return Answer(View(request->id()), response);
}

grpc::Status ExperimentsService::ListExperiments(grpc::ServerContext* context,
                                                 const v1::ListExperimentsRequest* request,
                                                 v1::ListExperimentsResponse* response) {
  int64_t before = 0;
  if (!request->page_token().empty() &&
      (!absl::SimpleAtoi(request->page_token(), &before) || before <= 0)) {
    return ToGrpcStatus(absl::InvalidArgumentError(absl::StrCat(
        "page_token '", request->page_token(), "' is not one that ListExperiments gave")));
  }
  if (request->page_size() > kLargestPage) {
    return ToGrpcStatus(absl::InvalidArgumentError(
        absl::StrCat("page_size must be at most ", kLargestPage, ", got ", request->page_size())));
  }
  const uint32_t size = request->page_size() == 0 ? kDefaultPage : request->page_size();
  const auto records = deps_.store->ListExperiments(before, static_cast<int>(size) + 1);
  if (!records.ok()) return ToGrpcStatus(records.status());
  for (const ExperimentRecord& record : *records) {
    if (response->experiments_size() == static_cast<int>(size)) {
      // The next page starts below the last one of this.
      response->set_next_page_token(absl::StrCat(record.number + 1));
      break;
    }
    auto view = ViewOf(deps_.store, *deps_.logic, *deps_.directory, deps_.clock, record);
    if (!view.ok()) return ToGrpcStatus(view.status());
    *response->add_experiments() = *std::move(view);
  }
  return grpc::Status::OK;
}

grpc::Status ExperimentsService::CancelExperiment(grpc::ServerContext* context,
                                                  const v1::CancelExperimentRequest* request,
                                                  v1::CancelExperimentResponse* response) {
  const absl::Status status = deps_.store->CancelExperiment(request->id(), deps_.clock->Now());
  if (!status.ok()) return ToGrpcStatus(status);
  deps_.changed->Notify();
  return Answer(View(request->id()), response);
}

grpc::Status ExperimentsService::ResumeExperiment(grpc::ServerContext* context,
                                                  const v1::ResumeExperimentRequest* request,
                                                  v1::ResumeExperimentResponse* response) {
  const absl::Status status = deps_.store->ResumeExperiment(request->id(), deps_.clock->Now());
  if (!status.ok()) return ToGrpcStatus(status);
  deps_.changed->Notify();
  return Answer(View(request->id()), response);
}

absl::StatusOr<v1::Report> ExperimentsService::MeasuredReport(const std::string& id) const {
  PLUMB_ASSIGN_OR_RETURN(const ExperimentRecord record, deps_.store->GetExperiment(id));
  if (record.stage_index == 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("experiment ", id, " has measured nothing yet: wait for its first stage"));
  }
  return deps_.store->GetReport(id);
}

grpc::Status ExperimentsService::ExportPlan(grpc::ServerContext* context,
                                            const v1::ExportPlanRequest* request,
                                            v1::ExportPlanResponse* response) {
  const auto report = MeasuredReport(request->id());
  if (!report.ok()) return ToGrpcStatus(report.status());
  return Answer(deps_.logic->Export(*report, *request), response);
}

grpc::Status ExperimentsService::CheckGate(grpc::ServerContext* context,
                                           const v1::CheckGateRequest* request,
                                           v1::CheckGateResponse* response) {
  const auto report = MeasuredReport(request->id());
  if (!report.ok()) return ToGrpcStatus(report.status());
  return Answer(deps_.logic->Gate(*report, *request), response);
}

absl::StatusOr<v1::PurgeExperimentResponse> ExperimentsService::Purge(
    const v1::PurgeExperimentRequest& request) {
  PLUMB_ASSIGN_OR_RETURN(PurgeOutcome outcome, deps_.store->PurgeTexts(request.id()));
  // Captured activations of the prompts go too; only then may the experiment's own list of them go.
  for (const std::string& capture : outcome.captures) {
    const absl::Status deleted = deps_.peers->DeleteCapture(capture);
    if (deleted.ok() || absl::IsNotFound(deleted)) continue;
    return Annotate(deleted,
                    absl::StrCat("texts are purged, capture ", capture, " is not yet: call again"));
  }
  v1::PurgeExperimentResponse response;
  response.set_texts_removed(outcome.texts_removed);
  if (request.everything()) {
    PLUMB_ASSIGN_OR_RETURN(outcome, deps_.store->PurgeExperiment(request.id()));
    response.set_cells_removed(outcome.cells_removed);
  }
  return response;
}

grpc::Status ExperimentsService::PurgeExperiment(grpc::ServerContext* context,
                                                 const v1::PurgeExperimentRequest* request,
                                                 v1::PurgeExperimentResponse* response) {
  return Answer(Purge(*request), response);
}

absl::StatusOr<v1::EstimateStudyResponse> ExperimentsService::Estimate(
    const v1::Study& study) const {
  StudyContext context;
  PLUMB_ASSIGN_OR_RETURN(context.study, deps_.logic->Normalize(study));
  PLUMB_ASSIGN_OR_RETURN(ExperimentPrompts prompts, deps_.prompts->Load(context.study));
  auto model = deps_.directory->Resolve(context.study.model());
  // A worker may be on its way: asking again is right.
  if (absl::IsNotFound(model.status())) return absl::UnavailableError(model.status().message());
  if (!model.ok()) return model.status();
  context.model = *std::move(model);
  PLUMB_ASSIGN_OR_RETURN(context.numerics,
                         deps_.directory->PickClass(context.model.model_digest()));
  context.prompts = std::move(prompts.prompts);
  context.prompt_sets = std::move(prompts.prompt_sets);
  context.utility_text = context.study.utility_text();
  v1::EstimateStudyResponse response = deps_.logic->Estimate(context);
  const double rate = deps_.directory->TokensPerSecond(context.model.model_digest());
  if (rate > 0) {
    response.set_seconds_estimated(static_cast<double>(response.tokens_at_most()) / rate);
  }
  return response;
}

grpc::Status ExperimentsService::EstimateStudy(grpc::ServerContext* context,
                                               const v1::EstimateStudyRequest* request,
                                               v1::EstimateStudyResponse* response) {
  return Answer(Estimate(request->study()), response);
}

}  // namespace plumbline
