// ActivationCapture over gRPC.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "absl/status/statusor.h"
#include "plumbline/v1/capture.grpc.pb.h"
#include "plumbline/v1/config.pb.h"
#include "services/capture/capture_store.h"
#include "services/rpc/metrics.h"
#include "services/rpc/real_main.h"

namespace plumbline {

// Thread safe.
class CaptureService final : public v1::ActivationCapture::Service {
 public:
  // metrics may be null.
  static absl::StatusOr<std::unique_ptr<CaptureService>> Create(const v1::CaptureConfig& config,
                                                                Metrics* metrics);

  grpc::Status Record(grpc::ServerContext* context, grpc::ServerReader<v1::RecordRequest>* reader,
                      v1::RecordResponse* response) override;
  grpc::Status GetStats(grpc::ServerContext* context, const v1::GetStatsRequest* request,
                        v1::GetStatsResponse* response) override;
  grpc::Status Read(grpc::ServerContext* context, const v1::ReadRequest* request,
                    grpc::ServerWriter<v1::ReadResponse>* writer) override;
  grpc::Status ListCaptures(grpc::ServerContext* context, const v1::ListCapturesRequest* request,
                            v1::ListCapturesResponse* response) override;
  grpc::Status DeleteCapture(grpc::ServerContext* context, const v1::DeleteCaptureRequest* request,
                             v1::DeleteCaptureResponse* response) override;

 private:
  CaptureService(std::unique_ptr<CaptureStore> store, uint64_t max_bytes, Metrics* metrics);

  absl::Status RecordStream(grpc::ServerContext* context,
                            grpc::ServerReader<v1::RecordRequest>* reader,
                            v1::RecordResponse* response, const char** outcome);
  absl::Status FillStats(grpc::ServerContext* context, const v1::GetStatsRequest& request,
                         v1::GetStatsResponse* response);
  absl::StatusOr<v1::LayerStats> StatsOf(const CaptureIndex& index, uint32_t layer);
  absl::Status ReadInto(grpc::ServerContext* context, const v1::ReadRequest& request,
                        grpc::ServerWriter<v1::ReadResponse>* writer);
  void MeasureStored();

  std::unique_ptr<CaptureStore> store_;
  const uint64_t max_bytes_;
  Metrics* metrics_;
  std::mutex stats_mutex_;
  // By digest and layer: a capture's bytes never change. Bounded; guarded by stats_mutex_.
  std::map<std::pair<std::string, uint32_t>, v1::LayerStats> stats_;
};

absl::Status RunCapture(const v1::CaptureConfig& config, Process& process);

}  // namespace plumbline
