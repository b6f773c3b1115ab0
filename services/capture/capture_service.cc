#include "services/capture/capture_service.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/capture/activation_block.h"
#include "services/capture/capture_stats.h"
#include "services/capture/layer_statistics.h"
#include "services/common/logging.h"
#include "services/common/status_macros.h"
#include "services/rpc/server.h"
#include "services/rpc/status.h"

namespace plumbline {
namespace {

constexpr uint64_t kDefaultMaxCaptureMib = 2048;
constexpr size_t kMaxCachedLayers = 256;

bool Contains(const google::protobuf::RepeatedField<uint32_t>& layers, uint32_t layer) {
  return std::find(layers.begin(), layers.end(), layer) != layers.end();
}

absl::Status NotCaptured(const CaptureIndex& index, uint32_t layer) {
  return absl::OutOfRangeError(
      absl::StrCat("layer ", layer, " was not captured in '", index.header.capture_id(), "'"));
}

// Raw blocks were asked for; `layers`: "layer 3", or "every layer".
absl::Status StatisticsAlone(const CaptureIndex& index, absl::string_view layers) {
  return absl::OutOfRangeError(absl::StrCat(
      layers, " of '", index.header.capture_id(),
      "' was captured as statistics alone: ask GetStats for them, or record a capture that names "
      "it in `layers` for raw keys and values"));
}

absl::Status Gone() { return absl::CancelledError("the caller went away"); }

}  // namespace

absl::StatusOr<std::unique_ptr<CaptureService>> CaptureService::Create(
    const v1::CaptureConfig& config, Metrics* metrics) {
  PLUMB_ASSIGN_OR_RETURN(auto store, CaptureStore::Open(config.data_dir()));
  const uint64_t mib =
      config.max_capture_mib() == 0 ? kDefaultMaxCaptureMib : config.max_capture_mib();
  std::unique_ptr<CaptureService> service(new CaptureService(std::move(store), mib << 20, metrics));
  service->MeasureStored();
  return service;
}

CaptureService::CaptureService(std::unique_ptr<CaptureStore> store, uint64_t max_bytes,
                               Metrics* metrics)
    : store_(std::move(store)), max_bytes_(max_bytes), metrics_(metrics) {}

void CaptureService::MeasureStored() {
  if (metrics_ == nullptr) return;
  metrics_->Set(metric::kCaptureStoredBytes, {}, static_cast<double>(store_->total_bytes()));
}

grpc::Status CaptureService::Record(grpc::ServerContext* context,
                                    grpc::ServerReader<v1::RecordRequest>* reader,
                                    v1::RecordResponse* response) {
  const char* outcome = "refused";
  const absl::Status status = RecordStream(context, reader, response, &outcome);
  if (metrics_ != nullptr) metrics_->Increment(metric::kCaptureRecorded, {outcome});
  MeasureStored();
  return ToGrpcStatus(status);
}

absl::Status CaptureService::RecordStream(grpc::ServerContext* context,
                                          grpc::ServerReader<v1::RecordRequest>* reader,
                                          v1::RecordResponse* response, const char** outcome) {
  v1::RecordRequest request;
  const bool began = reader->Read(&request);
  if (!began && context->IsCancelled()) {
    *outcome = "broken";
    return absl::AbortedError("the stream broke before its header: record again");
  }
  if (!began || !request.has_header()) {
    return absl::InvalidArgumentError("the first message must be the header");
  }
  const v1::CaptureHeader header = request.header();
  PLUMB_RETURN_IF_ERROR(CheckCaptureHeader(header));
  PLUMB_ASSIGN_OR_RETURN(std::unique_ptr<CaptureWriter> writer, store_->Begin(header));
  BlockChecker checker(header);
  StatisticsChecker statistics(header);
  while (reader->Read(&request)) {
    if (request.has_block()) {
      PLUMB_RETURN_IF_ERROR(checker.Check(request.block()));
      PLUMB_RETURN_IF_ERROR(writer->Append(request.block()));
    } else if (request.has_statistics()) {
      PLUMB_RETURN_IF_ERROR(statistics.Check(request.statistics()));
      PLUMB_RETURN_IF_ERROR(writer->Append(request.statistics()));
    } else {
      return absl::InvalidArgumentError(
          "after the header every message must be a block or a layer's statistics");
    }
    if (writer->bytes() > max_bytes_) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "capture '", header.capture_id(), "' is larger than max_capture_mib = ", max_bytes_ >> 20,
          ": capture fewer layers or prompts, or raise the limit"));
    }
  }
  if (context->IsCancelled()) {
    *outcome = "broken";
    return absl::AbortedError("the stream broke; nothing was kept: record again");
  }
  PLUMB_RETURN_IF_ERROR(checker.CheckComplete());
  std::optional<uint64_t> raw_tokens;
  if (!header.layers().empty()) raw_tokens = checker.TokensOf(header.layers(0));
  PLUMB_RETURN_IF_ERROR(statistics.CheckComplete(raw_tokens));
  PLUMB_ASSIGN_OR_RETURN(CaptureStore::Committed committed, store_->Commit(writer.get()));
  *outcome = committed.was_there ? "repeated" : "stored";
  response->set_capture_digest(committed.digest);
  response->set_bytes(committed.bytes);
  spdlog::info("capture {} {}, {} bytes, digest {}", header.capture_id(), *outcome, committed.bytes,
               committed.digest);
  return absl::OkStatus();
}

absl::StatusOr<v1::LayerStats> CaptureService::StatsOf(const CaptureIndex& index, uint32_t layer) {
  const auto& measured = index.header.statistics_layers();
  if (Contains(measured, layer)) return store_->ReadStatistics(index, layer);
  if (!Contains(index.header.layers(), layer)) return NotCaptured(index, layer);
  const auto key = std::make_pair(index.digest, layer);
  {
    std::lock_guard<std::mutex> lock(stats_mutex_);
    const auto found = stats_.find(key);
    if (found != stats_.end()) return found->second;
  }
  PLUMB_ASSIGN_OR_RETURN(
      v1::LayerStats stats,
      ComputeLayerStats(index.header, layer, [&](uint32_t wanted_layer, uint32_t prompt) {
        return store_->ReadBlock(index, wanted_layer, prompt);
      }));
  std::lock_guard<std::mutex> lock(stats_mutex_);
  if (stats_.size() >= kMaxCachedLayers) stats_.clear();
  stats_[key] = stats;
  return stats;
}

absl::Status CaptureService::FillStats(grpc::ServerContext* context,
                                       const v1::GetStatsRequest& request,
                                       v1::GetStatsResponse* response) {
  const double percentile =
      request.outlier_percentile() == 0 ? kDefaultOutlierPercentile : request.outlier_percentile();
  PLUMB_ASSIGN_OR_RETURN(auto index, store_->Find(request.capture()));
  *response->mutable_header() = index->header;
  response->set_capture_digest(index->digest);
  std::vector<uint32_t> layers(request.layers().begin(), request.layers().end());
  if (layers.empty()) {
    const v1::CaptureHeader& header = index->header;
    layers.assign(header.layers().begin(), header.layers().end());
    layers.insert(layers.end(), header.statistics_layers().begin(),
                  header.statistics_layers().end());
  }
  for (uint32_t layer : layers) {
    if (context->IsCancelled()) return Gone();
    PLUMB_ASSIGN_OR_RETURN(v1::LayerStats stats, StatsOf(*index, layer));
    PLUMB_RETURN_IF_ERROR(MarkOutliers(percentile, &stats));
    *response->add_layers() = std::move(stats);
  }
  return absl::OkStatus();
}

grpc::Status CaptureService::GetStats(grpc::ServerContext* context,
                                      const v1::GetStatsRequest* request,
                                      v1::GetStatsResponse* response) {
  return ToGrpcStatus(FillStats(context, *request, response));
}

absl::Status CaptureService::ReadInto(grpc::ServerContext* context, const v1::ReadRequest& request,
                                      grpc::ServerWriter<v1::ReadResponse>* writer) {
  PLUMB_ASSIGN_OR_RETURN(auto index, store_->Find(request.capture()));
  for (uint32_t layer : request.layers()) {
    if (Contains(index->header.statistics_layers(), layer)) {
      return StatisticsAlone(*index, absl::StrCat("layer ", layer));
    }
    if (!Contains(index->header.layers(), layer)) return NotCaptured(*index, layer);
  }
  if (index->blocks.empty()) return StatisticsAlone(*index, "every layer");
  v1::ReadResponse response;
  *response.mutable_header() = index->header;
  response.set_capture_digest(index->digest);
  if (!writer->Write(response)) return Gone();
  response.clear_capture_digest();
  for (const CaptureIndex::Block& entry : index->blocks) {
    if (!request.layers().empty() && !Contains(request.layers(), entry.layer)) continue;
    if (context->IsCancelled()) return Gone();
    PLUMB_ASSIGN_OR_RETURN(*response.mutable_block(),
                           store_->ReadBlock(*index, entry.layer, entry.prompt));
    if (!writer->Write(response)) return Gone();
  }
  return absl::OkStatus();
}

grpc::Status CaptureService::Read(grpc::ServerContext* context, const v1::ReadRequest* request,
                                  grpc::ServerWriter<v1::ReadResponse>* writer) {
  return ToGrpcStatus(ReadInto(context, *request, writer));
}

grpc::Status CaptureService::ListCaptures(grpc::ServerContext*, const v1::ListCapturesRequest*,
                                          v1::ListCapturesResponse* response) {
  for (const auto& index : store_->List()) {
    v1::CaptureSummary* summary = response->add_captures();
    *summary->mutable_header() = index->header;
    summary->set_capture_digest(index->digest);
    summary->set_bytes(index->bytes);
  }
  return grpc::Status::OK;
}

grpc::Status CaptureService::DeleteCapture(grpc::ServerContext*,
                                           const v1::DeleteCaptureRequest* request,
                                           v1::DeleteCaptureResponse*) {
  const absl::Status status = store_->Delete(request->capture_id());
  MeasureStored();
  return ToGrpcStatus(status);
}

absl::Status RunCapture(const v1::CaptureConfig& config, Process& process) {
  PLUMB_ASSIGN_OR_RETURN(auto service, CaptureService::Create(config, process.metrics));
  return ServeUntilShutdown({.default_listen = kCaptureListen,
                             .config = config.server(),
                             .services = {Hosted<v1::ActivationCapture>(service.get())},
                             .metrics = process.metrics},
                            process);
}

}  // namespace plumbline
