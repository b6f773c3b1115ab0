#include "services/coordinator/work_service.h"

#include <algorithm>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "services/rpc/status.h"

namespace plumbline {
namespace {

// Well below the deadline of a call and the drain of a server.
constexpr absl::Duration kLongestHold = absl::Milliseconds(250);
// Each keeps a thread of the server and looks again at every change.
constexpr int kMostHeld = 16;
// After a change that brought this worker nothing: changes come in bursts.
constexpr absl::Duration kShortestPause = absl::Milliseconds(10);
constexpr absl::Duration kAfterHold = absl::Milliseconds(40);

bool NothingToDo(const v1::SyncRequest& request, const v1::SyncResponse& response) {
  return !request.draining() && request.free_cells() > 0 && request.running().empty() &&
         response.start().empty() && response.drop_lease_ids().empty();
}

}  // namespace

WorkService::WorkService(LeaseManager* manager, const ChangeSignal* changed, int concurrent_calls)
    : manager_(manager), changed_(changed), most_held_(std::min(kMostHeld, concurrent_calls / 4)) {}

absl::StatusOr<v1::SyncResponse> WorkService::SyncWhenThereIsWork(
    const grpc::ServerContext& context, const v1::SyncRequest& request) {
  const absl::Time until = absl::Now() + kLongestHold;
  for (bool first = true;; first = false) {
    const uint64_t seen = changed_->version();
    absl::StatusOr<v1::SyncResponse> response = manager_->Sync(request);
    if (!response.ok() || !NothingToDo(request, *response)) return response;
    const absl::Duration left = until - absl::Now();
    if (left <= absl::ZeroDuration()) {
      SetDuration(kAfterHold, response->mutable_call_again_within());
      return response;
    }
    if (held_.fetch_add(1) >= most_held_) {
      held_.fetch_sub(1);
      return response;
    }
    if (!first) absl::SleepFor(std::min(kShortestPause, left));
    changed_->WaitForChange(seen, left);
    held_.fetch_sub(1);
    // Work that is given to a worker that died would wait for its lease to expire.
    if (context.IsCancelled()) return absl::CancelledError("the worker went away");
  }
}

grpc::Status WorkService::Sync(grpc::ServerContext* context, const v1::SyncRequest* request,
                               v1::SyncResponse* response) {
  auto answer = SyncWhenThereIsWork(*context, *request);
  if (!answer.ok()) return ToGrpcStatus(answer.status());
  *response = *std::move(answer);
  return grpc::Status::OK;
}

grpc::Status WorkService::Report(grpc::ServerContext* context, const v1::ReportRequest* request,
                                 v1::ReportResponse* response) {
  auto answer = manager_->Report(*request);
  if (!answer.ok()) return ToGrpcStatus(answer.status());
  *response = *std::move(answer);
  return grpc::Status::OK;
}

}  // namespace plumbline
