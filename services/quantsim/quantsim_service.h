// QuantizationSimulation over gRPC: activations from the capture service or sent along. Stateless.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "plumbline/v1/capture.grpc.pb.h"
#include "plumbline/v1/config.pb.h"
#include "plumbline/v1/quantsim.grpc.pb.h"
#include "services/quantsim/simulator.h"
#include "services/rpc/client.h"
#include "services/rpc/metrics.h"
#include "services/rpc/real_main.h"

namespace plumbline {

// Thread safe.
class QuantsimService final : public v1::QuantizationSimulation::Service {
 public:
  // config.capture may be empty: then only inline activations are simulated. metrics may be null.
  static absl::StatusOr<std::unique_ptr<QuantsimService>> Create(const v1::QuantsimConfig& config,
                                                                 Metrics* metrics);

  grpc::Status Simulate(grpc::ServerContext* context, const v1::SimulateRequest* request,
                        v1::SimulateResponse* response) override;
  grpc::Status QuantizeTensor(grpc::ServerContext* context,
                              const v1::QuantizeTensorRequest* request,
                              v1::QuantizeTensorResponse* response) override;

 private:
  struct Task {
    std::vector<std::string> texts;
    std::vector<LayerFormat> formats;
    SimulationOptions options;
    std::vector<std::vector<v1::FormatError>> by_layer;  // [layers][formats]
  };
  QuantsimService(std::unique_ptr<RpcClient<v1::ActivationCapture>> capture, Metrics* metrics)
      : capture_(std::move(capture)), metrics_(metrics) {}

  absl::Status Run(grpc::ServerContext* context, const v1::SimulateRequest& request,
                   v1::SimulateResponse* response);
  absl::StatusOr<Task> Plan(grpc::ServerContext* context, const v1::SimulateRequest& request);
  absl::Status Calibrate(grpc::ServerContext* context, Task* task);
  absl::Status FromCapture(grpc::ServerContext* context, const v1::SimulateRequest& request,
                           Task* task, std::string* digest);
  absl::Status FromInline(const v1::SimulateRequest& request, Task* task);
  absl::Status RunLayer(uint32_t layer, const std::vector<v1::ActivationBlock>& blocks, Task* task);

  std::unique_ptr<RpcClient<v1::ActivationCapture>> capture_;  // null without an endpoint
  Metrics* metrics_;
};

absl::Status RunQuantsim(const v1::QuantsimConfig& config, Process& process);

}  // namespace plumbline
