// The level-triggered lease protocol of proto/plumbline/v1/work.proto, without gRPC.
//
// What is granted lives in the store, so a restarted coordinator goes on with the leases of the one
// before. In memory are only the workers' incarnations and sequence numbers.
#pragma once

#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "plumbline/v1/work.pb.h"
#include "services/common/clock.h"
#include "services/coordinator/cell_queue.h"
#include "services/coordinator/change_signal.h"
#include "services/coordinator/model_directory.h"
#include "services/rpc/metrics.h"
#include "services/store/store.h"

namespace plumbline {

struct LeaseOptions {
  absl::Duration lease_ttl = absl::Seconds(30);
  int max_attempts = 3;
  int cells_per_lease = 64;
  double audit_fraction = 0.01;  // of cells run once more when the class has a second worker
  int max_resends = 8;           // a lease that its worker never lists expires after so many Syncs
  absl::Duration retry_backoff = absl::Seconds(1);  // doubles with each failure of a cell
  absl::Duration idle_call_again = absl::Milliseconds(500);
  // While a study is under way: between two of its stages a worker has nothing to do.
  absl::Duration study_call_again = absl::Milliseconds(60);
};

// protobuf's form of a duration.
void SetDuration(absl::Duration duration, google::protobuf::Duration* out);

// Thread safe.
class LeaseManager {
 public:
  // Nothing is owned. `metrics` may be null.
  LeaseManager(LeaseOptions options, Store* store, ModelDirectory* directory, Clock* clock,
               ChangeSignal* changed, Metrics* metrics);

  // FailedPrecondition: the worker is quarantined. Aborted: a newer incarnation or sequence number
  // was seen. InvalidArgument: a field is missing.
  absl::StatusOr<v1::SyncResponse> Sync(const v1::SyncRequest& request);

  // InvalidArgument: malformed result. FailedPrecondition: the worker is quarantined.
  absl::StatusOr<v1::ReportResponse> Report(const v1::ReportRequest& request);

  // Ends the leases whose worker has missed its time. Sync does it too; this is for quiet times. A
  // coordinator's own absence is not held against its workers: for one lease time after it was made
  // nothing expires.
  absl::Status ExpireLeases();

 private:
  struct WorkerState {
    std::string incarnation_id;
    uint64_t sequence = 0;
    std::deque<std::string> retired;  // incarnations that were replaced
  };
  absl::Status CheckWorker(const std::string& worker_id) const;
  absl::Status AcceptSequence(const v1::SyncRequest& request);
  absl::Status Reconcile(const v1::SyncRequest& request, absl::Time now, v1::SyncResponse* response,
                         int* free_cells);
  absl::Status Resend(const LeaseRecord& lease, absl::Time now, v1::SyncResponse* response,
                      int* free_cells);
  absl::Status GrantCells(const v1::SyncRequest& request, absl::Time now, int* free_cells,
                          bool* studies, v1::SyncResponse* response);
  absl::Status GrantAudits(const v1::SyncRequest& request, absl::Time now, int* free_cells,
                           v1::SyncResponse* response);
  absl::Status GrantCapture(const v1::SyncRequest& request, absl::Time now, int* free_cells,
                            v1::SyncResponse* response);
  absl::Status Grant(const LeaseRecord& lease, v1::SyncResponse* response);
  absl::Status AddToResponse(const LeaseRecord& lease, v1::SyncResponse* response);
  LeaseRecord NewLease(const v1::SyncRequest& request, absl::Time now);
  absl::Status ExpireLocked(absl::Time now);
  WorkFailure FailureOf(const v1::WorkStatus& status, uint32_t attempt, absl::Time now) const;
  bool WantsAudit(const std::string& cell_key) const;
  absl::Status ReportCells(const v1::ReportRequest& request, absl::Time now,
                           v1::ReportResponse* response);
  absl::Status ReportCapture(const v1::ReportRequest& request, absl::Time now);
  void Count(const MetricInfo& info, LabelValues labels, double by = 1);

  const LeaseOptions options_;
  Store* const store_;
  ModelDirectory* const directory_;
  Clock* const clock_;
  ChangeSignal* const changed_;
  Metrics* const metrics_;
  const CellQueue queue_;
  const std::string nonce_;  // makes the lease ids of this process its own
  const absl::Time started_;

  std::mutex mutex_;
  std::map<std::string, WorkerState> workers_;  // guarded by mutex_
  uint64_t leases_made_ = 0;                    // guarded by mutex_
};

}  // namespace plumbline
