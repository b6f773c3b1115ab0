// PcrClassifier over gRPC: protos to evidence and back. Pure: equal requests give equal bytes.
#pragma once

#include "absl/status/statusor.h"
#include "plumbline/v1/config.pb.h"
#include "plumbline/v1/pcr.grpc.pb.h"
#include "services/pcr/classifier.h"
#include "services/rpc/metrics.h"
#include "services/rpc/real_main.h"

namespace plumbline {

// InvalidArgument names the field.
absl::StatusOr<Evidence> EvidenceFromProto(const v1::ClassifyRequest& request);
v1::ClassifyResponse ClassificationToProto(const Classification& classification,
                                           const v1::ClassifyRequest& request);

// Thread safe.
class PcrService final : public v1::PcrClassifier::Service {
 public:
  explicit PcrService(Metrics* metrics) : metrics_(metrics) {}  // metrics may be null
  grpc::Status Classify(grpc::ServerContext* context, const v1::ClassifyRequest* request,
                        v1::ClassifyResponse* response) override;

 private:
  Metrics* metrics_;
};

absl::Status RunPcr(const v1::PcrConfig& config, Process& process);

}  // namespace plumbline
