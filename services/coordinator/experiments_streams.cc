// The streaming calls of Experiments.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/coordinator/experiments_service.h"
#include "services/coordinator/report_builder.h"
#include "services/rpc/status.h"

namespace plumbline {
namespace {

constexpr int kRowsAPage = 200;
constexpr size_t kChunkBytes = 256 << 10;
// How stale a watcher's figures may get, and how often it hears of changes at most.
constexpr absl::Duration kLongestSilence = absl::Seconds(1);
constexpr absl::Duration kShortestPause = absl::Milliseconds(200);

v1::ListResultsResponse ToProto(ResultRow row) {
  v1::ListResultsResponse out;
  out.set_cell_key(row.cell_key);
  *out.mutable_spec() = std::move(row.spec);
  if (row.state == WorkState::kStored) *out.mutable_result() = std::move(row.result);
  if (row.state == WorkState::kPoisoned) {
    v1::WorkStatus* status = out.mutable_result()->mutable_status();
    status->set_code(static_cast<int>(absl::StatusCode::kAborted));
    status->set_message(absl::StrCat("poisoned: ", row.poison_reason));
  }
  if (row.has_verdict) *out.mutable_verdict() = std::move(row.verdict);
  out.set_prompt_id(row.prompt_id);
  out.set_prompt_set(row.prompt_set);
  out.set_condition(row.condition);
  out.set_stage(row.stage);
  return out;
}

}  // namespace

grpc::Status ExperimentsService::WatchExperiment(
    grpc::ServerContext* context, const v1::WatchExperimentRequest* request,
    grpc::ServerWriter<v1::WatchExperimentResponse>* writer) {
  std::string last_sent;
  while (!context->IsCancelled()) {
    const uint64_t version = deps_.changed->version();
    auto view = View(request->id());
    if (!view.ok()) return ToGrpcStatus(view.status());
    v1::WatchExperimentResponse response;
    const bool ended = view->has_ended();
    *response.mutable_experiment() = *std::move(view);
    std::string bytes = response.SerializeAsString();
    if (bytes != last_sent) {
      if (!writer->Write(response)) break;
      last_sent = std::move(bytes);
    }
    if (ended) return grpc::Status::OK;
    if (ending_) {
      return ToGrpcStatus(absl::UnavailableError("the coordinator shuts down: watch again"));
    }
    deps_.clock->SleepFor(kShortestPause);
    deps_.changed->WaitForChange(version, kLongestSilence);
  }
  return grpc::Status::CANCELLED;
}

absl::Status ExperimentsService::StreamResults(
    const v1::ListResultsRequest& request, grpc::ServerContext* context,
    grpc::ServerWriter<v1::ListResultsResponse>* writer) const {
  std::string key;
  std::string condition;
  while (!context->IsCancelled()) {
    PLUMB_ASSIGN_OR_RETURN(std::vector<ResultRow> rows,
                           deps_.store->ListResults(request.id(), key, condition, kRowsAPage,
                                                    request.include_texts()));
    if (rows.empty()) return absl::OkStatus();
    key = rows.back().cell_key;
    condition = rows.back().condition;
    for (ResultRow& row : rows) {
      if (!writer->Write(ToProto(std::move(row)))) return absl::CancelledError("client went away");
    }
  }
  return absl::CancelledError("call cancelled");
}

grpc::Status ExperimentsService::ListResults(grpc::ServerContext* context,
                                             const v1::ListResultsRequest* request,
                                             grpc::ServerWriter<v1::ListResultsResponse>* writer) {
  return ToGrpcStatus(StreamResults(*request, context, writer));
}

absl::Status ExperimentsService::StreamReport(
    const v1::GetReportRequest& request, grpc::ServerWriter<v1::GetReportResponse>* writer) const {
  const v1::ReportFormat format =
      request.format() == v1::REPORT_FORMAT_UNSPECIFIED ? v1::REPORT_FORMAT_HTML : request.format();
  PLUMB_ASSIGN_OR_RETURN(const ExperimentRecord record, deps_.store->GetExperiment(request.id()));
  PLUMB_ASSIGN_OR_RETURN(const v1::Report report, BuildReport(deps_.store, *deps_.logic, record,
                                                              {format, request.show_texts()}));
  PLUMB_ASSIGN_OR_RETURN(const std::vector<ReportFile> files,
                         deps_.render(report, format, request.show_texts()));
  for (const ReportFile& file : files) {
    size_t at = 0;
    do {
      v1::GetReportResponse chunk;
      if (at == 0) chunk.set_file_name(file.name);
      chunk.set_chunk(file.bytes.substr(at, kChunkBytes));
      at += kChunkBytes;
      if (!writer->Write(chunk)) return absl::CancelledError("client went away");
    } while (at < file.bytes.size());
  }
  return absl::OkStatus();
}

grpc::Status ExperimentsService::GetReport(grpc::ServerContext* context,
                                           const v1::GetReportRequest* request,
                                           grpc::ServerWriter<v1::GetReportResponse>* writer) {
  return ToGrpcStatus(StreamReport(*request, writer));
}

}  // namespace plumbline
