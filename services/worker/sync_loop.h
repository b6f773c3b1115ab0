// A worker's side of the lease protocol (proto/plumbline/v1/work.proto): level-triggered, so every
// message may be lost, repeated or late.
//
// Two threads: one calls Sync, one calls Report. Finished results wait in a queue until the
// coordinator has taken them; a coordinator that is away costs time, never a result.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/time.h"
#include "plumbline/v1/work.pb.h"
#include "services/common/clock.h"
#include "services/rpc/metrics.h"
#include "services/worker/capture_sender.h"
#include "services/worker/cell_executor.h"
#include "services/worker/coordinator_link.h"

namespace plumbline {

struct SyncLoopOptions {
  std::string worker_id;
  std::string incarnation_id;
  v1::WorkerCapabilities capabilities;
  int max_cells = 512;  // held at once, running and waiting
  absl::Duration first_retry = absl::Milliseconds(200);
  absl::Duration longest_retry = absl::Seconds(5);
  int results_per_report = 64;
};

class SyncLoop {
 public:
  // Nothing owned but `link`; the rest outlives the loop. tokens_computed: total so far, for the
  // rate.
  SyncLoop(SyncLoopOptions options, std::unique_ptr<CoordinatorLink> link, CellExecutor* executor,
           CaptureSender* captures, Metrics* metrics, Clock* clock,
           std::function<int64_t()> tokens_computed);
  ~SyncLoop();

  // Asks for no more work, and returns once running cells are reported or `patience` is over.
  void Drain(absl::Duration patience);

  // Ends the threads: nothing is asked for or reported any more. Results that come later are kept.
  void Stop();

  // One round of each thread's work, for tests; Start runs them in threads.
  absl::Duration SyncOnce();  // pause before the next call
  bool ReportOnce();          // false when there was nothing to send or the call failed
  void Start();

  int cells_held() const;

 private:
  struct LeaseState {
    std::set<std::string> unfinished;
    bool capture = false;
  };
  struct Outgoing {
    std::string lease_id;
    v1::CellResult result;
    v1::CaptureResult capture;  // when capture_id is set
  };

  v1::SyncRequest MakeSyncRequest();
  void Apply(const v1::SyncResponse& response);
  void StartLease(const v1::Lease& lease);
  void DropLease(const std::string& lease_id);
  void DropEverything();
  void Finished(const std::string& lease_id, uint32_t attempt, absl::Time started,
                v1::CellResult result);
  void Enqueue(Outgoing outgoing);
  v1::ReportRequest TakeReport();
  void ReportDone(const v1::ReportRequest& request);
  void SyncThread();
  void ReportThread();

  const SyncLoopOptions options_;
  const std::unique_ptr<CoordinatorLink> link_;
  CellExecutor* const executor_;
  CaptureSender* const captures_;
  Metrics* const metrics_;
  Clock* const clock_;
  const std::function<int64_t()> tokens_computed_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, LeaseState> leases_;  // guarded by mutex_
  std::vector<Outgoing> outgoing_;  // guarded by mutex_; in flight ones stay until accepted
  std::string incarnation_id_;      // guarded by mutex_
  uint64_t sequence_ = 0;           // guarded by mutex_
  bool draining_ = false, stopping_ = false;  // guarded by mutex_
  bool sync_now_ = false;                     // guarded by mutex_
  bool said_draining_ = false;                // guarded by mutex_; answered or not
  absl::Duration retry_;                      // sync thread alone
  int64_t rate_tokens_ = 0;                   // sync thread alone
  absl::Time rate_since_;                     // sync thread alone
  double rate_ = 0;                           // sync thread alone
  std::thread sync_thread_, report_thread_;
};

}  // namespace plumbline
