#include "services/worker/sync_loop.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/digest.h"
#include "services/common/logging.h"

namespace plumbline {
namespace {

constexpr absl::Duration kRateWindow = absl::Seconds(10);
constexpr absl::Duration kQuarantinePause = absl::Seconds(30);
constexpr absl::Duration kReportRetry = absl::Milliseconds(300);

const char* FinishLabel(const v1::CellResult& result) {
  if (result.status().code() != 0) return "error";
  switch (result.finish_reason()) {
    case v1::FINISH_REASON_EOS:
      return "eos";
    case v1::FINISH_REASON_LENGTH:
      return "length";
    case v1::FINISH_REASON_VERDICT:
      return "verdict";
    default:
      return "nonfinite";
  }
}

}  // namespace

SyncLoop::SyncLoop(SyncLoopOptions options, std::unique_ptr<CoordinatorLink> link,
                   CellExecutor* executor, CaptureSender* captures, Metrics* metrics, Clock* clock,
                   std::function<int64_t()> tokens_computed)
    : options_(std::move(options)),
      link_(std::move(link)),
      executor_(executor),
      captures_(captures),
      metrics_(metrics),
      clock_(clock),
      tokens_computed_(std::move(tokens_computed)),
      incarnation_id_(options_.incarnation_id),
      retry_(options_.first_retry),
      rate_tokens_(tokens_computed_()),
      rate_since_(clock->Now()),
      rate_(options_.capabilities.tokens_per_second()) {}

SyncLoop::~SyncLoop() { Stop(); }

void SyncLoop::Stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (sync_thread_.joinable()) sync_thread_.join();
  if (report_thread_.joinable()) report_thread_.join();
}

void SyncLoop::Start() {
  sync_thread_ = std::thread([this] { SyncThread(); });
  report_thread_ = std::thread([this] { ReportThread(); });
}

int SyncLoop::cells_held() const {
  std::lock_guard<std::mutex> lock(mutex_);
  size_t held = 0;
  for (const auto& [id, lease] : leases_) held += lease.unfinished.size();
  return static_cast<int>(held);
}

v1::SyncRequest SyncLoop::MakeSyncRequest() {
  const absl::Time now = clock_->Now();
  if (now - rate_since_ >= kRateWindow) {
    const int64_t tokens = tokens_computed_();
    // A worker that had nothing to do is as fast as it was.
    if (tokens > rate_tokens_) {
      rate_ = static_cast<double>(tokens - rate_tokens_) / absl::ToDoubleSeconds(now - rate_since_);
    }
    rate_tokens_ = tokens;
    rate_since_ = now;
  }
  v1::SyncRequest request;
  request.set_worker_id(options_.worker_id);
  *request.mutable_capabilities() = options_.capabilities;
  request.mutable_capabilities()->set_tokens_per_second(rate_);
  std::lock_guard<std::mutex> lock(mutex_);
  request.set_incarnation_id(incarnation_id_);
  request.set_sequence(++sequence_);
  request.set_draining(draining_);
  int held = 0;
  for (const auto& [id, lease] : leases_) {
    v1::RunningLease* running = request.add_running();
    running->set_lease_id(id);
    for (const std::string& key : lease.unfinished) running->add_cell_keys(key);
    held += static_cast<int>(lease.unfinished.size());
  }
  request.set_free_cells(draining_ ? 0 : std::max(0, options_.max_cells - held));
  return request;
}

absl::Duration SyncLoop::SyncOnce() {
  const v1::SyncRequest request = MakeSyncRequest();
  const absl::StatusOr<v1::SyncResponse> response = link_->Sync(request);
  if (request.draining()) {
    std::lock_guard<std::mutex> lock(mutex_);
    said_draining_ = true;
    changed_.notify_all();
  }
  if (response.ok()) {
    retry_ = options_.first_retry;
    Apply(*response);
    const absl::Duration wait = absl::Seconds(response->call_again_within().seconds()) +
                                absl::Nanoseconds(response->call_again_within().nanos());
    return std::clamp(wait / 2, absl::Milliseconds(20), absl::Seconds(30));
  }
  const absl::Status& status = response.status();
  if (absl::IsAborted(status)) {
    spdlog::warn("coordinator knows a newer incarnation of this worker; starting anew: {}",
                 std::string(status.message()));
    DropEverything();
  } else if (absl::IsFailedPrecondition(status)) {
    spdlog::error("this worker is quarantined: {}", std::string(status.message()));
    DropEverything();
    return kQuarantinePause;
  } else {
    spdlog::warn("sync: {}", status.ToString());
  }
  const absl::Duration pause = retry_;
  retry_ = std::min(retry_ * 2, options_.longest_retry);
  return pause;
}

void SyncLoop::Apply(const v1::SyncResponse& response) {
  for (const std::string& lease_id : response.drop_lease_ids()) DropLease(lease_id);
  {
    // The answer to a call from before: the next one, which says that this worker drains and does
    // not run them, gives them back.
    std::lock_guard<std::mutex> lock(mutex_);
    if (draining_) return;
  }
  for (const v1::Lease& lease : response.start()) StartLease(lease);
}

void SyncLoop::StartLease(const v1::Lease& lease) {
  std::vector<std::pair<std::string, const v1::LeasedCell*>> fresh;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (leases_.contains(lease.lease_id())) return;  // sent again because our Sync was late
    LeaseState& state = leases_[lease.lease_id()];
    state.capture = lease.has_capture();
    if (state.capture) state.unfinished.insert(lease.capture().capture_id());
    for (const v1::LeasedCell& cell : lease.cells()) {
      if (state.unfinished.insert(cell.cell_key()).second)
        fresh.push_back({cell.cell_key(), &cell});
    }
  }
  const absl::Time started = clock_->Now();
  const std::string lease_id = lease.lease_id();
  if (lease.has_capture()) {
    captures_->Start(lease.capture(), [this, lease_id](v1::CaptureResult result) {
      Enqueue({lease_id, {}, std::move(result)});
    });
  }
  for (const auto& [key, cell] : fresh) {
    const uint32_t attempt = cell->attempt();
    executor_->Start(key, cell->spec(), [this, lease_id, attempt, started](v1::CellResult result) {
      Finished(lease_id, attempt, started, std::move(result));
    });
  }
}

void SyncLoop::DropLease(const std::string& lease_id) {
  std::set<std::string> cells;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    auto node = leases_.extract(lease_id);
    if (node.empty() || node.mapped().capture) return;
    cells = std::move(node.mapped().unfinished);
    // A cell may have been granted again under another lease that this worker also holds.
    for (const auto& [id, lease] : leases_) {
      for (const std::string& key : lease.unfinished) cells.erase(key);
    }
  }
  for (const std::string& key : cells) executor_->Drop(key);
}

void SyncLoop::DropEverything() {
  std::vector<std::string> ids;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& [id, lease] : leases_) ids.push_back(id);
    incarnation_id_ = DigestBuilder("incarnation/1")
                          .Add("before", incarnation_id_)
                          .Add("time", absl::ToUnixNanos(clock_->Now()))
                          .Finish()
                          .substr(0, 32);
    sequence_ = 0;
  }
  for (const std::string& id : ids) DropLease(id);
}

void SyncLoop::Finished(const std::string& lease_id, uint32_t attempt, absl::Time started,
                        v1::CellResult result) {
  metrics_->Increment(metric::kWorkerCells, {FinishLabel(result)});
  result.set_worker_id(options_.worker_id);
  result.set_attempt(attempt);
  result.set_seconds(absl::ToDoubleSeconds(clock_->Now() - started));
  Enqueue({lease_id, std::move(result), {}});
}

void SyncLoop::Enqueue(Outgoing outgoing) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    outgoing_.push_back(std::move(outgoing));
  }
  changed_.notify_all();
}

v1::ReportRequest SyncLoop::TakeReport() {
  std::lock_guard<std::mutex> lock(mutex_);
  v1::ReportRequest request;
  if (outgoing_.empty()) return request;
  request.set_worker_id(options_.worker_id);
  request.set_incarnation_id(incarnation_id_);
  request.set_lease_id(outgoing_.front().lease_id);
  for (const Outgoing& outgoing : outgoing_) {
    if (outgoing.lease_id != request.lease_id()) continue;
    if (!outgoing.capture.capture_id().empty()) {
      *request.mutable_capture() = outgoing.capture;
    } else {
      *request.add_results() = outgoing.result;
    }
    if (request.results_size() >= options_.results_per_report) break;
  }
  return request;
}

void SyncLoop::ReportDone(const v1::ReportRequest& request) {
  std::set<std::string> sent;
  for (const v1::CellResult& result : request.results()) sent.insert(result.cell_key());
  if (request.has_capture()) sent.insert(request.capture().capture_id());
  std::lock_guard<std::mutex> lock(mutex_);
  std::erase_if(outgoing_, [&](const Outgoing& outgoing) {
    if (outgoing.lease_id != request.lease_id()) return false;
    return sent.contains(outgoing.capture.capture_id().empty() ? outgoing.result.cell_key()
                                                               : outgoing.capture.capture_id());
  });
  if (auto it = leases_.find(request.lease_id()); it != leases_.end()) {
    for (const std::string& key : sent) it->second.unfinished.erase(key);
    if (it->second.unfinished.empty()) leases_.erase(it);
  }
  size_t held = 0;
  for (const auto& [id, lease] : leases_) held += lease.unfinished.size();
  // Ask for more before the batch runs thin.
  if (!draining_ && static_cast<int>(held) * 2 <= options_.max_cells) sync_now_ = true;
  changed_.notify_all();
}

bool SyncLoop::ReportOnce() {
  const v1::ReportRequest request = TakeReport();
  if (request.lease_id().empty()) return false;
  const absl::StatusOr<v1::ReportResponse> response = link_->Report(request);
  if (!response.ok()) {
    spdlog::warn("report of {} results of lease {}: {}", request.results_size(), request.lease_id(),
                 response.status().ToString());
    // A malformed report would fail for ever and hold up those behind it.
    if (absl::IsInvalidArgument(response.status())) ReportDone(request);
    return false;
  }
  for (int outcome : response->outcomes()) {
    if (outcome == v1::REPORT_OUTCOME_CONFLICT) {
      spdlog::error(
          "a result of lease {} differs from the stored one: the promise of equal bits "
          "is broken on this worker or on the one before",
          request.lease_id());
    }
  }
  ReportDone(request);
  return true;
}

void SyncLoop::SyncThread() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!stopping_) {
    sync_now_ = false;
    lock.unlock();
    const absl::Duration pause = SyncOnce();
    lock.lock();
    // Freed room does not hurry the next call more often than this.
    changed_.wait_for(lock, absl::ToChronoMilliseconds(std::min(pause, absl::Milliseconds(50))),
                      [this] { return stopping_; });
    changed_.wait_for(lock, absl::ToChronoMilliseconds(pause),
                      [this] { return stopping_ || sync_now_; });
  }
}

void SyncLoop::ReportThread() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!stopping_) {
    changed_.wait(lock, [this] { return stopping_ || !outgoing_.empty(); });
    if (stopping_) break;
    lock.unlock();
    const bool sent = ReportOnce();
    lock.lock();
    if (!sent) {
      changed_.wait_for(lock, absl::ToChronoMilliseconds(kReportRetry),
                        [this] { return stopping_; });
    }
  }
}

void SyncLoop::Drain(absl::Duration patience) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    draining_ = true;
    sync_now_ = true;
  }
  changed_.notify_all();
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait_for(lock, absl::ToChronoMilliseconds(patience),
                    [this] { return said_draining_ && leases_.empty() && outgoing_.empty(); });
}

}  // namespace plumbline
