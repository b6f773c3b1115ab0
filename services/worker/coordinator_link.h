// The two calls a worker makes, behind an interface so that the sync loop is tested without a
// network.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "plumbline/v1/work.grpc.pb.h"
#include "services/rpc/client.h"

namespace plumbline {

class CoordinatorLink {
 public:
  virtual ~CoordinatorLink() = default;
  virtual absl::StatusOr<v1::SyncResponse> Sync(const v1::SyncRequest& request) = 0;
  virtual absl::StatusOr<v1::ReportResponse> Report(const v1::ReportRequest& request) = 0;
};

class GrpcCoordinatorLink final : public CoordinatorLink {
 public:
  explicit GrpcCoordinatorLink(std::unique_ptr<RpcClient<v1::Work>> client)
      : client_(std::move(client)) {}
  absl::StatusOr<v1::SyncResponse> Sync(const v1::SyncRequest& request) override {
    return client_->Call(&v1::Work::Stub::Sync, request);
  }
  absl::StatusOr<v1::ReportResponse> Report(const v1::ReportRequest& request) override {
    return client_->Call(&v1::Work::Stub::Report, request);
  }

 private:
  const std::unique_ptr<RpcClient<v1::Work>> client_;
};

}  // namespace plumbline
