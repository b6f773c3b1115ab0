// Work over gRPC: LeaseManager with status codes.
#pragma once

#include "plumbline/v1/work.grpc.pb.h"
#include "services/coordinator/lease_manager.h"

namespace plumbline {

class WorkService final : public v1::Work::Service {
 public:
  explicit WorkService(LeaseManager* manager) : manager_(manager) {}

  grpc::Status Sync(grpc::ServerContext* context, const v1::SyncRequest* request,
                    v1::SyncResponse* response) override;
  grpc::Status Report(grpc::ServerContext* context, const v1::ReportRequest* request,
                      v1::ReportResponse* response) override;

 private:
  LeaseManager* const manager_;
};

}  // namespace plumbline
