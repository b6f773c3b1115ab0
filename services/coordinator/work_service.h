// Work over gRPC: LeaseManager with status codes. A worker that has nothing to do is not answered
// at once: its Sync waits for work to appear, so that a stage begins when the one before has ended.
#pragma once

#include <atomic>

#include "plumbline/v1/work.grpc.pb.h"
#include "services/coordinator/lease_manager.h"

namespace plumbline {

class WorkService final : public v1::Work::Service {
 public:
  // Neither is owned.
  WorkService(LeaseManager* manager, const ChangeSignal* changed)
      : manager_(manager), changed_(changed) {}

  grpc::Status Sync(grpc::ServerContext* context, const v1::SyncRequest* request,
                    v1::SyncResponse* response) override;
  grpc::Status Report(grpc::ServerContext* context, const v1::ReportRequest* request,
                      v1::ReportResponse* response) override;

 private:
  absl::StatusOr<v1::SyncResponse> SyncWhenThereIsWork(const grpc::ServerContext& context,
                                                       const v1::SyncRequest& request);

  LeaseManager* const manager_;
  const ChangeSignal* const changed_;
  std::atomic<int> held_{0};  // Syncs that wait
};

}  // namespace plumbline
