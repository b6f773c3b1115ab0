// Work over gRPC: LeaseManager with status codes. A worker that runs nothing, has room and finds
// nothing is not answered at once: its Sync waits for work to appear, so that a stage begins when
// the one before has ended. Where as many calls wait as may, it is told when to ask again.
#pragma once

#include <atomic>

#include "plumbline/v1/work.grpc.pb.h"
#include "services/coordinator/lease_manager.h"

namespace plumbline {

class WorkService final : public v1::Work::Service {
 public:
  // Neither is owned. concurrent_calls: what the server takes at a time; a quarter of it at most
  // waits, the rest is for everyone else.
  WorkService(LeaseManager* manager, const ChangeSignal* changed, int concurrent_calls);

  grpc::Status Sync(grpc::ServerContext* context, const v1::SyncRequest* request,
                    v1::SyncResponse* response) override;
  grpc::Status Report(grpc::ServerContext* context, const v1::ReportRequest* request,
                      v1::ReportResponse* response) override;

 private:
  absl::StatusOr<v1::SyncResponse> SyncWhenThereIsWork(const grpc::ServerContext& context,
                                                       const v1::SyncRequest& request);

  LeaseManager* const manager_;
  const ChangeSignal* const changed_;
  const int most_held_;
  std::atomic<int> held_{0};  // Syncs that wait
};

}  // namespace plumbline
