// The capture service on loopback, over a folder of its own.
#pragma once

#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/capture/capture_service.h"
#include "services/common/files.h"
#include "services/rpc/client.h"
#include "services/rpc/server.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/capture/activations.h"

namespace plumbline::testing {

using Client = RpcClient<v1::ActivationCapture>;
using Stub = v1::ActivationCapture::Stub;

class CaptureFixture : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = absl::StrCat(::testing::TempDir(), "/captures", getpid());
    Serve();
  }
  void TearDown() override { (void)!system(absl::StrCat("rm -rf ", folder_).c_str()); }
  void Serve(uint32_t max_mib = 0) {
    client_.reset();
    server_.reset();
    service_.reset();
    metrics_ = Metrics::Create("capture");
    v1::CaptureConfig config;
    config.set_data_dir(folder_);
    config.set_max_capture_mib(max_mib);
    ASSERT_OK_AND_ASSIGN(service_, CaptureService::Create(config, metrics_.get()));
    ASSERT_OK_AND_ASSIGN(
        server_, RpcServer::Start({.default_listen = "127.0.0.1:0",
                                   .services = {Hosted<v1::ActivationCapture>(service_.get())},
                                   .metrics = metrics_.get()}));
    v1::Endpoint endpoint;
    endpoint.set_address(server_->address());
    ASSERT_OK_AND_ASSIGN(client_, Client::Create(endpoint));
  }
  absl::StatusOr<v1::RecordResponse> Record(const v1::CaptureHeader& header,
                                            const std::vector<v1::ActivationBlock>& blocks,
                                            const std::vector<v1::LayerStats>& statistics = {}) {
    grpc::ClientContext context;
    client_->Prepare(&context);
    v1::RecordResponse response;
    auto writer = client_->stub().Record(&context, &response);
    v1::RecordRequest request;
    *request.mutable_header() = header;
    bool open = writer->Write(request);
    for (size_t i = 0; open && i < blocks.size(); ++i) {
      *request.mutable_block() = blocks[i];
      open = writer->Write(request);
    }
    for (size_t i = 0; open && i < statistics.size(); ++i) {
      *request.mutable_statistics() = statistics[i];
      open = writer->Write(request);
    }
    writer->WritesDone();
    const grpc::Status status = writer->Finish();
    if (!status.ok()) return FromGrpcStatus(status);
    return response;
  }
  absl::StatusOr<v1::GetStatsResponse> Stats(const std::string& capture, double percentile = 0,
                                             std::vector<uint32_t> layers = {}) {
    v1::GetStatsRequest request;
    request.set_capture(capture);
    request.set_outlier_percentile(percentile);
    for (uint32_t layer : layers) request.add_layers(layer);
    return client_->Call(&Stub::GetStats, request);
  }
  absl::StatusOr<std::vector<v1::ReadResponse>> Read(const std::string& capture,
                                                     std::vector<uint32_t> layers = {}) {
    grpc::ClientContext context;
    client_->Prepare(&context);
    v1::ReadRequest request;
    request.set_capture(capture);
    for (uint32_t layer : layers) request.add_layers(layer);
    auto reader = client_->stub().Read(&context, request);
    std::vector<v1::ReadResponse> responses;
    v1::ReadResponse response;
    while (reader->Read(&response)) responses.push_back(response);
    const grpc::Status status = reader->Finish();
    if (!status.ok()) return FromGrpcStatus(status);
    return responses;
  }
  std::vector<std::string> Files() { return *ListDirectory(folder_); }

  std::string folder_;
  std::unique_ptr<Metrics> metrics_;
  std::unique_ptr<CaptureService> service_;
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<Client> client_;
};

}  // namespace plumbline::testing
