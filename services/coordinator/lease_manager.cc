#include "services/coordinator/lease_manager.h"

#include <algorithm>
#include <random>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "services/cells/cells.h"
#include "services/common/digest.h"
#include "services/common/logging.h"
#include "services/common/status_macros.h"

namespace plumbline {
namespace {

constexpr size_t kRetiredKept = 64;
constexpr int kMaxBackoffDoublings = 6;

std::string RandomNonce() {
  std::random_device device;
  return absl::StrFormat("%08x%08x", device(), device());
}

absl::Status CheckIds(const std::string& worker_id, const std::string& incarnation_id) {
  if (worker_id.empty() || worker_id.size() > 200) {
    return absl::InvalidArgumentError(
        absl::StrCat("worker_id must have 1..200 characters, has ", worker_id.size()));
  }
  if (incarnation_id.empty()) {
    return absl::InvalidArgumentError("incarnation_id is empty: send a new one for each process");
  }
  return absl::OkStatus();
}

}  // namespace

void SetDuration(absl::Duration duration, google::protobuf::Duration* out) {
  const int64_t seconds = absl::ToInt64Seconds(duration);
  out->set_seconds(seconds);
  out->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(duration - absl::Seconds(seconds))));
}

LeaseManager::LeaseManager(LeaseOptions options, Store* store, ModelDirectory* directory,
                           Clock* clock, ChangeSignal* changed, Metrics* metrics)
    : options_(options),
      store_(store),
      directory_(directory),
      clock_(clock),
      changed_(changed),
      metrics_(metrics),
      queue_(store, directory),
      nonce_(RandomNonce()),
      started_(clock->Now()) {}

void LeaseManager::Count(const MetricInfo& info, LabelValues labels, double by) {
  if (metrics_ != nullptr && by > 0) metrics_->Increment(info, labels, by);
}

absl::Status LeaseManager::CheckWorker(const std::string& worker_id) const {
  PLUMB_ASSIGN_OR_RETURN(const std::vector<QuarantinedWorker> quarantined, store_->Quarantined());
  for (const QuarantinedWorker& worker : quarantined) {
    if (worker.worker_id != worker_id) continue;
    return absl::FailedPreconditionError(absl::StrCat(
        "worker '", worker_id, "' is quarantined since ", absl::FormatTime(worker.since), ": ",
        worker.reason, "; check the machine, then start it under another worker_id"));
  }
  return absl::OkStatus();
}

absl::Status LeaseManager::AcceptSequence(const v1::SyncRequest& request) {
  WorkerState& state = workers_[request.worker_id()];
  const std::string& incarnation = request.incarnation_id();
  if (state.incarnation_id == incarnation) {
    if (request.sequence() < state.sequence) {
      return absl::AbortedError(absl::StrCat("sequence ", request.sequence(), " comes after ",
                                             state.sequence, ": a late call"));
    }
    state.sequence = request.sequence();
    return absl::OkStatus();
  }
  if (std::find(state.retired.begin(), state.retired.end(), incarnation) != state.retired.end()) {
    return absl::AbortedError(absl::StrCat("incarnation ", incarnation, " of worker '",
                                           request.worker_id(), "' was replaced by ",
                                           state.incarnation_id));
  }
  if (!state.incarnation_id.empty()) state.retired.push_back(state.incarnation_id);
  if (state.retired.size() > kRetiredKept) state.retired.pop_front();
  state.incarnation_id = incarnation;
  state.sequence = request.sequence();
  return absl::OkStatus();
}

absl::StatusOr<v1::SyncResponse> LeaseManager::Sync(const v1::SyncRequest& request) {
  PLUMB_RETURN_IF_ERROR(CheckIds(request.worker_id(), request.incarnation_id()));
  if (request.capabilities().numerics().id().empty()) {
    return absl::InvalidArgumentError("capabilities.numerics.id is empty");
  }
  std::lock_guard<std::mutex> lock(mutex_);
  const absl::Time now = clock_->Now();
  if (absl::Status status = CheckWorker(request.worker_id()); !status.ok()) {
    directory_->Remove(request.worker_id());
    return status;
  }
  if (workers_[request.worker_id()].incarnation_id != request.incarnation_id()) {
    PLUMB_RETURN_IF_ERROR(store_->PutIncarnation({.incarnation_id = request.incarnation_id(),
                                                  .worker_id = request.worker_id(),
                                                  .version = request.capabilities().version(),
                                                  .machine = request.capabilities().machine()}));
  }
  PLUMB_RETURN_IF_ERROR(AcceptSequence(request));
  PLUMB_RETURN_IF_ERROR(ExpireLocked(now));
  if (request.draining()) {
    directory_->Remove(request.worker_id());
  } else {
    directory_->Update(request.worker_id(), request.capabilities());
  }
  if (metrics_ != nullptr) metrics_->Set(metric::kWorkersSeen, {}, directory_->CountLive());

  v1::SyncResponse response;
  int free_cells = static_cast<int>(std::min<uint32_t>(request.free_cells(), 1 << 20));
  bool studies = false;
  PLUMB_RETURN_IF_ERROR(Reconcile(request, now, &response, &free_cells));
  if (!request.draining()) {
    PLUMB_RETURN_IF_ERROR(GrantCapture(request, now, &free_cells, &response));
    PLUMB_RETURN_IF_ERROR(GrantCells(request, now, &free_cells, &studies, &response));
    PLUMB_RETURN_IF_ERROR(GrantAudits(request, now, &free_cells, &response));
  }
  // A third of the life of a lease: two calls in a row may get lost. A worker with room asks
  // sooner.
  absl::Duration again = options_.lease_ttl / 3;
  if (free_cells > 0 && !request.draining()) {
    again = std::min(again, studies ? options_.study_call_again : options_.idle_call_again);
  }
  SetDuration(again, response.mutable_call_again_within());
  SetDuration(options_.lease_ttl, response.mutable_lease_ttl());
  return response;
}

absl::Status LeaseManager::Reconcile(const v1::SyncRequest& request, absl::Time now,
                                     v1::SyncResponse* response, int* free_cells) {
  std::map<std::string, const v1::RunningLease*> running;
  for (const v1::RunningLease& lease : request.running()) running[lease.lease_id()] = &lease;
  PLUMB_ASSIGN_OR_RETURN(const std::vector<LeaseRecord> leases,
                         store_->LeasesOfWorker(request.worker_id()));
  for (const LeaseRecord& lease : leases) {
    if (lease.incarnation_id != request.incarnation_id()) {
      WorkFailure failure = FailureOf({}, 0, now);
      failure.reason = absl::StrCat("worker ", request.worker_id(), " restarted while it ran");
      PLUMB_RETURN_IF_ERROR(store_->EndLease(lease.lease_id, failure));
      Count(metric::kLeasesExpired, {});
      continue;
    }
    if (running.erase(lease.lease_id) > 0) {
      PLUMB_RETURN_IF_ERROR(
          store_->RenewLease(lease.lease_id, now + options_.lease_ttl, /*resends=*/0));
    } else if (request.draining()) {
      WorkFailure returned;
      returned.kind = FailureKind::kReturned;
      returned.reason = "its worker drained before it started";
      PLUMB_RETURN_IF_ERROR(store_->EndLease(lease.lease_id, returned));
    } else {
      PLUMB_RETURN_IF_ERROR(Resend(lease, now, response, free_cells));
    }
  }
  // What is left is known to the worker alone: expired, cancelled, or of another incarnation.
  for (const auto& [lease_id, unused] : running) response->add_drop_lease_ids(lease_id);
  return absl::OkStatus();
}

absl::Status LeaseManager::Resend(const LeaseRecord& lease, absl::Time now,
                                  v1::SyncResponse* response, int* free_cells) {
  if (lease.resends >= options_.max_resends) {
    WorkFailure failure = FailureOf({}, 0, now);
    failure.reason = absl::StrCat("worker ", lease.worker_id, " was sent the lease ",
                                  lease.resends + 1, " times and never ran it");
    Count(metric::kLeasesExpired, {});
    return store_->EndLease(lease.lease_id, failure);
  }
  PLUMB_RETURN_IF_ERROR(
      store_->RenewLease(lease.lease_id, now + options_.lease_ttl, lease.resends + 1));
  *free_cells -= std::max<int>(1, static_cast<int>(lease.cell_keys.size()));
  return AddToResponse(lease, response);
}

LeaseRecord LeaseManager::NewLease(const v1::SyncRequest& request, absl::Time now) {
  LeaseRecord lease;
  lease.lease_id = absl::StrCat("lease-", nonce_, "-", ++leases_made_);
  lease.worker_id = request.worker_id();
  lease.incarnation_id = request.incarnation_id();
  lease.expires = now + options_.lease_ttl;
  return lease;
}

absl::Status LeaseManager::AddToResponse(const LeaseRecord& lease, v1::SyncResponse* response) {
  v1::Lease out;
  out.set_lease_id(lease.lease_id);
  if (lease.capture_id.empty()) {
    PLUMB_ASSIGN_OR_RETURN(const std::vector<v1::LeasedCell> cells,
                           store_->CellsOfLease(lease.lease_id));
    if (cells.empty()) return absl::OkStatus();
    out.mutable_cells()->Assign(cells.begin(), cells.end());
  } else {
    PLUMB_ASSIGN_OR_RETURN(CaptureRecord capture, store_->GetCapture(lease.capture_id));
    *out.mutable_capture() = std::move(capture.task);
  }
  *response->add_start() = std::move(out);
  return absl::OkStatus();
}

absl::Status LeaseManager::Grant(const LeaseRecord& lease, v1::SyncResponse* response) {
  const absl::Status granted = store_->GrantLease(lease);
  // Someone else was faster; the next Sync sees what is left.
  if (absl::IsAborted(granted)) return absl::OkStatus();
  PLUMB_RETURN_IF_ERROR(granted);
  Count(metric::kLeasesGranted, {});
  return AddToResponse(lease, response);
}

absl::Status LeaseManager::GrantCells(const v1::SyncRequest& request, absl::Time now,
                                      int* free_cells, bool* studies, v1::SyncResponse* response) {
  PLUMB_ASSIGN_OR_RETURN(const CellQueue::Picked picked,
                         queue_.Pick(request.capabilities(), *free_cells, now));
  const std::vector<std::string>& keys = picked.keys;
  *studies = picked.studies;
  const auto size = static_cast<size_t>(std::max(1, options_.cells_per_lease));
  for (size_t begin = 0; begin < keys.size(); begin += size) {
    LeaseRecord lease = NewLease(request, now);
    const size_t end = std::min(keys.size(), begin + size);
    lease.cell_keys.assign(keys.begin() + static_cast<int64_t>(begin),
                           keys.begin() + static_cast<int64_t>(end));
    PLUMB_RETURN_IF_ERROR(Grant(lease, response));
  }
  *free_cells -= static_cast<int>(keys.size());
  return absl::OkStatus();
}

absl::Status LeaseManager::GrantAudits(const v1::SyncRequest& request, absl::Time now,
                                       int* free_cells, v1::SyncResponse* response) {
  for (const v1::ModelInfo& model : request.capabilities().models()) {
    const int limit = std::min(*free_cells, options_.cells_per_lease);
    if (limit <= 0) return absl::OkStatus();
    PLUMB_ASSIGN_OR_RETURN(std::vector<std::string> keys,
                           store_->WantedAudits(request.worker_id(), model.model_digest(),
                                                request.capabilities().numerics().id(), limit));
    if (keys.empty()) continue;
    *free_cells -= static_cast<int>(keys.size());
    LeaseRecord lease = NewLease(request, now);
    lease.audit = true;
    lease.cell_keys = std::move(keys);
    PLUMB_RETURN_IF_ERROR(Grant(lease, response));
  }
  return absl::OkStatus();
}

absl::Status LeaseManager::GrantCapture(const v1::SyncRequest& request, absl::Time now,
                                        int* free_cells, v1::SyncResponse* response) {
  for (const v1::ModelInfo& model : request.capabilities().models()) {
    if (*free_cells <= 0) return absl::OkStatus();
    PLUMB_ASSIGN_OR_RETURN(
        const std::vector<v1::CaptureTask> tasks,
        store_->OpenCaptures(model.model_digest(), request.capabilities().numerics().id(), now, 1));
    if (tasks.empty()) continue;
    --*free_cells;
    LeaseRecord lease = NewLease(request, now);
    lease.capture_id = tasks[0].capture_id();
    return Grant(lease, response);
  }
  return absl::OkStatus();
}

absl::Status LeaseManager::ExpireLeases() {
  std::lock_guard<std::mutex> lock(mutex_);
  return ExpireLocked(clock_->Now());
}

absl::Status LeaseManager::ExpireLocked(absl::Time now) {
  if (now < started_ + options_.lease_ttl) return absl::OkStatus();
  PLUMB_ASSIGN_OR_RETURN(const std::vector<LeaseRecord> leases, store_->ExpiredLeases(now));
  for (const LeaseRecord& lease : leases) {
    WorkFailure failure = FailureOf({}, 0, now);
    failure.reason = absl::StrCat("worker ", lease.worker_id, " was not heard from in time");
    spdlog::warn("lease {} of worker {} expired with {} cells", lease.lease_id, lease.worker_id,
                 lease.cell_keys.size());
    PLUMB_RETURN_IF_ERROR(store_->EndLease(lease.lease_id, failure));
    directory_->Remove(lease.worker_id);  // until it calls again
    Count(metric::kLeasesExpired, {});
  }
  if (!leases.empty()) changed_->Notify();
  return absl::OkStatus();
}

WorkFailure LeaseManager::FailureOf(const v1::WorkStatus& status, uint32_t attempt,
                                    absl::Time now) const {
  WorkFailure failure;
  failure.max_attempts = options_.max_attempts;
  const auto code = static_cast<absl::StatusCode>(status.code());
  failure.reason = absl::StrCat(absl::StatusCodeToString(code), ": ", status.message());
  switch (code) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kUnimplemented:
      failure.kind = FailureKind::kPermanent;
      break;
    case absl::StatusCode::kCancelled:
      failure.kind = FailureKind::kReturned;
      break;
    default:
      failure.kind = FailureKind::kRetry;
  }
  const int doublings = std::min<int>(static_cast<int>(attempt), kMaxBackoffDoublings);
  if (attempt > 0) failure.not_before = now + options_.retry_backoff * (1 << (doublings - 1));
  return failure;
}

// By the key alone, so that which cells are audited does not depend on who runs them.
bool LeaseManager::WantsAudit(const std::string& cell_key) const {
  const std::string head = Sha256Hex(absl::StrCat("audit:", cell_key)).substr(0, 12);
  const double draw = static_cast<double>(std::stoull(head, nullptr, 16)) / 0x1p48;
  return draw < options_.audit_fraction;
}

absl::StatusOr<v1::ReportResponse> LeaseManager::Report(const v1::ReportRequest& request) {
  PLUMB_RETURN_IF_ERROR(CheckIds(request.worker_id(), request.incarnation_id()));
  for (const v1::CellResult& result : request.results()) {
    if (result.cell_key().empty()) return absl::InvalidArgumentError("results: cell_key is empty");
    if (result.status().code() < 0 || result.status().code() > 16) {
      return absl::InvalidArgumentError(
          absl::StrCat("results: status.code of cell ", result.cell_key(),
                       " must be a google.rpc.Code in 0..16,", " got ", result.status().code()));
    }
  }
  std::lock_guard<std::mutex> lock(mutex_);
  PLUMB_RETURN_IF_ERROR(CheckWorker(request.worker_id()));
  const absl::Time now = clock_->Now();
  v1::ReportResponse response;
  PLUMB_RETURN_IF_ERROR(ReportCells(request, now, &response));
  if (request.has_capture()) PLUMB_RETURN_IF_ERROR(ReportCapture(request, now));
  changed_->Notify();
  return response;
}

absl::Status LeaseManager::ReportCells(const v1::ReportRequest& request, absl::Time now,
                                       v1::ReportResponse* response) {
  std::vector<NewResult> good;
  std::vector<int> good_at;
  response->mutable_outcomes()->Resize(request.results_size(), v1::REPORT_OUTCOME_UNSPECIFIED);
  for (int i = 0; i < request.results_size(); ++i) {
    const v1::CellResult& result = request.results(i);
    if (result.status().code() == 0) {
      good.push_back({.result = result,
                      .digest = ResultDigest(result),
                      .want_audit = WantsAudit(result.cell_key()),
                      .incarnation_id = request.incarnation_id()});
      good_at.push_back(i);
      continue;
    }
    PLUMB_ASSIGN_OR_RETURN(
        const FailOutcome outcome,
        store_->FailCell(request.lease_id(), result.cell_key(),
                         FailureOf(result.status(), std::max(1u, result.attempt()), now)));
    const v1::ReportOutcome answer =
        outcome == FailOutcome::kRetry           ? v1::REPORT_OUTCOME_RETRY
        : outcome == FailOutcome::kPoisoned      ? v1::REPORT_OUTCOME_POISONED
        : outcome == FailOutcome::kAlreadyStored ? v1::REPORT_OUTCOME_EQUAL
                                                 : v1::REPORT_OUTCOME_UNKNOWN_CELL;
    response->set_outcomes(i, answer);
    Count(metric::kResults, {answer == v1::REPORT_OUTCOME_POISONED ? "poisoned" : "retry"});
  }
  if (good.empty()) return absl::OkStatus();
  PLUMB_ASSIGN_OR_RETURN(const std::vector<PutResultOutcome> outcomes,
                         store_->PutResults(request.worker_id(), request.lease_id(), good, now));
  for (size_t i = 0; i < outcomes.size(); ++i) {
    static constexpr v1::ReportOutcome kAnswers[] = {
        v1::REPORT_OUTCOME_STORED, v1::REPORT_OUTCOME_EQUAL, v1::REPORT_OUTCOME_CONFLICT,
        v1::REPORT_OUTCOME_UNKNOWN_CELL};
    static constexpr const char* kLabels[] = {"stored", "equal", "conflict", "unknown_cell"};
    const auto outcome = static_cast<size_t>(outcomes[i].outcome);
    response->set_outcomes(good_at[i], kAnswers[outcome]);
    Count(metric::kResults, {kLabels[outcome]});
    if (outcomes[i].outcome != PutOutcome::kConflict) continue;
    Count(metric::kInvarianceViolations, {});
    directory_->Remove(request.worker_id());
    directory_->Remove(outcomes[i].other_worker);
    spdlog::error("invariance violation: workers {} and {} differ on cell {}; both quarantined",
                  outcomes[i].other_worker, request.worker_id(), good[i].result.cell_key());
  }
  return absl::OkStatus();
}

absl::Status LeaseManager::ReportCapture(const v1::ReportRequest& request, absl::Time now) {
  const v1::CaptureResult& capture = request.capture();
  if (capture.capture_id().empty())
    return absl::InvalidArgumentError("capture.capture_id is empty");
  if (capture.status().code() == 0) {
    return store_->PutCapture(capture.capture_id(), capture.capture_digest(), capture.tokens());
  }
  WorkFailure failure = FailureOf(capture.status(), 1, now);
  // The capture service is away, not the work at fault: the study waits as long as it takes.
  if (capture.status().code() == static_cast<int>(absl::StatusCode::kUnavailable) ||
      capture.status().code() == static_cast<int>(absl::StatusCode::kDeadlineExceeded)) {
    failure.kind = FailureKind::kReturned;
  }
  return store_->FailCapture(request.lease_id(), capture.capture_id(), failure).status();
}

}  // namespace plumbline
