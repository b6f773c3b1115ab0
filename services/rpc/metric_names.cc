#include "services/rpc/metric_names.h"

namespace plumbline {
namespace metric {
namespace {

const std::vector<double>& Seconds() {
  static const std::vector<double> buckets = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
                                              0.5,   1,      2.5,   5,    10,    30,   120};
  return buckets;
}

const std::vector<const char*> kCodes = {
    "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
    "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
    "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
    "DATA_LOSS", "UNAUTHENTICATED"};

}  // namespace

const MetricInfo kBuildInfo = {
    "plumb_build_info",
    MetricKind::kGauge,
    "Always 1; the labels say what runs.",
    {{"service", {"coordinator", "worker", "capture", "quantsim", "judge", "pcr", "test"}},
     {"version", {}}}};
const MetricInfo kServing = {"plumb_serving", MetricKind::kGauge,
                             "1 while new calls are taken, 0 while draining."};
const MetricInfo kInsecureListener = {
    "plumb_insecure_listener", MetricKind::kGauge,
    "1 where plain text is served beyond this machine because the config says insecure: true."};
const MetricInfo kRpcCalls = {"plumb_rpc_calls_total",
                              MetricKind::kCounter,
                              "Finished calls by method and status code.",
                              {{"method", {}}, {"code", kCodes}}};
const MetricInfo kRpcSeconds = {"plumb_rpc_duration_seconds",
                                MetricKind::kHistogram,
                                "Time from a call's arrival to its status.",
                                {{"method", {}}},
                                Seconds()};
const MetricInfo kRpcInFlight = {"plumb_rpc_in_flight", MetricKind::kGauge, "Calls being served."};
const MetricInfo kClientRetries = {
    "plumb_client_retries_total",
    MetricKind::kCounter,
    "Calls to other services that were tried again, by the code that "
    "made it necessary.",
    {{"code", kCodes}}};

const MetricInfo kExperiments = {
    "plumb_experiments",
    MetricKind::kGauge,
    "Experiments by state.",
    {{"state", {"pending", "running", "waiting", "succeeded", "failed", "cancelled"}}}};
const MetricInfo kCells = {"plumb_cells",
                           MetricKind::kGauge,
                           "Cells of running experiments by state.",
                           {{"state", {"pending", "leased", "done", "poisoned"}}}};
const MetricInfo kLeasesGranted = {"plumb_leases_granted_total", MetricKind::kCounter,
                                   "Leases handed to workers."};
const MetricInfo kLeasesExpired = {"plumb_leases_expired_total", MetricKind::kCounter,
                                   "Leases whose worker did not call in time."};
const MetricInfo kResults = {
    "plumb_results_total",
    MetricKind::kCounter,
    "Reported cell results by what became of them.",
    {{"outcome", {"stored", "equal", "conflict", "retry", "poisoned", "unknown_cell"}}}};
const MetricInfo kInvarianceViolations = {
    "plumb_invariance_violations_total", MetricKind::kCounter,
    "Results that differed from the stored result of the same cell. Never acceptable."};
const MetricInfo kWorkersSeen = {"plumb_workers_seen", MetricKind::kGauge,
                                 "Workers that called within two lease times."};
const MetricInfo kVerdictFlips = {"plumb_verdict_flips_total", MetricKind::kCounter,
                                  "Cells whose verdict is comply where the baseline refused."};

const MetricInfo kWorkerCells = {"plumb_worker_cells_total",
                                 MetricKind::kCounter,
                                 "Cells finished by this worker, by how the answer ended.",
                                 {{"finish", {"eos", "length", "verdict", "nonfinite", "error"}}}};
const MetricInfo kWorkerTokens = {"plumb_worker_tokens_total",
                                  MetricKind::kCounter,
                                  "Tokens run through the model.",
                                  {{"phase", {"prompt", "decode"}}}};
const MetricInfo kWorkerStepSeconds = {"plumb_worker_step_duration_seconds",
                                       MetricKind::kHistogram,
                                       "Time of one engine step over the batch.",
                                       {},
                                       Seconds()};
const MetricInfo kWorkerActive = {"plumb_worker_active_sequences", MetricKind::kGauge,
                                  "Sequences in the batch or waiting for room in it."};
const MetricInfo kWorkerEngineSeconds = {"plumb_worker_engine_seconds_total",
                                         MetricKind::kCounter,
                                         "Where the engine's time went.",
                                         {{"part", {"matmul", "attention", "quantize", "other"}}}};

const MetricInfo kVerdicts = {
    "plumb_verdicts_total",
    MetricKind::kCounter,
    "Verdicts given.",
    {{"judge", {"keyword", "wildguard", "llamaguard"}},
     {"label", {"refuse", "comply", "degenerate", "judge_failed", "nonfinite"}}}};
const MetricInfo kVerdictCacheHits = {"plumb_verdict_cache_hits_total", MetricKind::kCounter,
                                      "Verdicts answered from the cache."};
const MetricInfo kCaptureRecorded = {"plumb_captures_recorded_total",
                                     MetricKind::kCounter,
                                     "Record streams by how they ended.",
                                     {{"outcome", {"stored", "repeated", "refused", "broken"}}}};
const MetricInfo kCaptureStoredBytes = {"plumb_capture_stored_bytes", MetricKind::kGauge,
                                        "Bytes of all captures kept."};
const MetricInfo kSimulatedElements = {"plumb_simulated_elements_total", MetricKind::kCounter,
                                       "Values put through a quantizer."};
const MetricInfo kClassifications = {"plumb_classifications_total",
                                     MetricKind::kCounter,
                                     "Evidence classified.",
                                     {{"policy", {"plumbline", "paper"}}}};

const std::vector<const MetricInfo*>& All() {
  static const std::vector<const MetricInfo*> all = {&kBuildInfo,
                                                     &kServing,
                                                     &kInsecureListener,
                                                     &kRpcCalls,
                                                     &kRpcSeconds,
                                                     &kRpcInFlight,
                                                     &kClientRetries,
                                                     &kExperiments,
                                                     &kCells,
                                                     &kLeasesGranted,
                                                     &kLeasesExpired,
                                                     &kResults,
                                                     &kInvarianceViolations,
                                                     &kWorkersSeen,
                                                     &kVerdictFlips,
                                                     &kWorkerCells,
                                                     &kWorkerTokens,
                                                     &kWorkerStepSeconds,
                                                     &kWorkerActive,
                                                     &kWorkerEngineSeconds,
                                                     &kVerdicts,
                                                     &kVerdictCacheHits,
                                                     &kCaptureRecorded,
                                                     &kCaptureStoredBytes,
                                                     &kSimulatedElements,
                                                     &kClassifications};
  return all;
}

}  // namespace metric
}  // namespace plumbline
