#include "services/coordinator/grpc_peers.h"

#include "plumbline/v1/capture.grpc.pb.h"
#include "plumbline/v1/pcr.grpc.pb.h"
#include "plumbline/v1/quantsim.grpc.pb.h"
#include "services/common/status_macros.h"
#include "services/coordinator/peer_status.h"
#include "services/rpc/client.h"

namespace plumbline {
namespace {

class GrpcPeers final : public CoordinatorPeers {
 public:
  GrpcPeers(std::unique_ptr<RpcClient<v1::ActivationCapture>> capture,
            std::unique_ptr<RpcClient<v1::QuantizationSimulation>> quantsim,
            std::unique_ptr<RpcClient<v1::PcrClassifier>> pcr)
      : capture_(std::move(capture)), quantsim_(std::move(quantsim)), pcr_(std::move(pcr)) {}

  absl::StatusOr<v1::GetStatsResponse> CaptureStats(const v1::GetStatsRequest& request) override {
    auto response = capture_->Call(&v1::ActivationCapture::Stub::GetStats, request);
    if (!response.ok()) return PeerStatus("capture", response.status());
    return response;
  }

  absl::StatusOr<v1::SimulateResponse> Simulate(const v1::SimulateRequest& request) override {
    auto response = quantsim_->Call(&v1::QuantizationSimulation::Stub::Simulate, request);
    if (!response.ok()) return PeerStatus("quantsim", response.status());
    return response;
  }

  absl::StatusOr<v1::ClassifyResponse> Classify(const v1::ClassifyRequest& request) override {
    auto response = pcr_->Call(&v1::PcrClassifier::Stub::Classify, request);
    if (!response.ok()) return PeerStatus("pcr", response.status());
    return response;
  }

  absl::Status DeleteCapture(const std::string& capture_id) override {
    v1::DeleteCaptureRequest request;
    request.set_capture_id(capture_id);
    const auto response = capture_->Call(&v1::ActivationCapture::Stub::DeleteCapture, request);
    return response.ok() ? absl::OkStatus() : PeerStatus("capture", response.status());
  }

 private:
  const std::unique_ptr<RpcClient<v1::ActivationCapture>> capture_;
  const std::unique_ptr<RpcClient<v1::QuantizationSimulation>> quantsim_;
  const std::unique_ptr<RpcClient<v1::PcrClassifier>> pcr_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<CoordinatorPeers>> MakeGrpcPeers(const v1::Endpoint& capture,
                                                                const v1::Endpoint& quantsim,
                                                                const v1::Endpoint& pcr) {
  auto capture_client = RpcClient<v1::ActivationCapture>::Create(capture);
  if (!capture_client.ok()) return Annotate(capture_client.status(), "capture");
  auto quantsim_client = RpcClient<v1::QuantizationSimulation>::Create(quantsim);
  if (!quantsim_client.ok()) return Annotate(quantsim_client.status(), "quantsim");
  auto pcr_client = RpcClient<v1::PcrClassifier>::Create(pcr);
  if (!pcr_client.ok()) return Annotate(pcr_client.status(), "pcr");
  return std::make_unique<GrpcPeers>(*std::move(capture_client), *std::move(quantsim_client),
                                     *std::move(pcr_client));
}

}  // namespace plumbline
