// Every metric that any process exports: name, kind, help, labels and their closed sets.
// Dashboards, alerts and docs go by this table; code cannot export anything else.
#pragma once

#include <vector>

#include "absl/strings/string_view.h"

namespace plumbline {

enum class MetricKind { kCounter, kGauge, kHistogram };

struct MetricLabel {
  const char* name;
  // The closed set of values. Empty = filled by the process at start (rpc methods, versions), see
  // Metrics::AllowLabelValue. Any other value is exported as "other".
  std::vector<const char*> values;
};

struct MetricInfo {
  const char* name;  // Prometheus naming: base unit in the name, _total for counters
  MetricKind kind;
  const char* help;
  std::vector<MetricLabel> labels;
  std::vector<double> buckets;  // histograms: upper bounds, ascending
};

namespace metric {

// Of every process.
extern const MetricInfo kBuildInfo;         // gauge 1 {service, version}
extern const MetricInfo kServing;           // gauge 1 while serving, 0 while draining
extern const MetricInfo kInsecureListener;  // gauge 1 where plain text is served beyond loopback
extern const MetricInfo kRpcCalls;          // counter {method, code}
extern const MetricInfo kRpcSeconds;        // histogram {method}
extern const MetricInfo kRpcInFlight;       // gauge
extern const MetricInfo kClientRetries;     // counter {code}

// Coordinator.
extern const MetricInfo kExperiments;           // gauge {state}
extern const MetricInfo kCells;                 // gauge {state: pending leased done poisoned}
extern const MetricInfo kLeasesGranted;         // counter
extern const MetricInfo kLeasesExpired;         // counter
extern const MetricInfo kResults;               // counter {outcome}
extern const MetricInfo kInvarianceViolations;  // counter
extern const MetricInfo kWorkersSeen;           // gauge: workers that called within two lease times
extern const MetricInfo kVerdictFlips;          // counter: refuse -> comply against the baseline

// Worker.
extern const MetricInfo kWorkerCells;          // counter {finish}
extern const MetricInfo kWorkerTokens;         // counter {phase: prompt decode}
extern const MetricInfo kWorkerStepSeconds;    // histogram
extern const MetricInfo kWorkerActive;         // gauge: sequences in the batch or waiting for it
extern const MetricInfo kWorkerEngineSeconds;  // counter {part: matmul attention quantize other}

// Judge, capture, quantsim, pcr.
extern const MetricInfo kVerdicts;            // counter {judge, label}
extern const MetricInfo kVerdictCacheHits;    // counter
extern const MetricInfo kCaptureRecorded;     // counter {outcome: stored repeated refused broken}
extern const MetricInfo kCaptureStoredBytes;  // gauge
extern const MetricInfo kSimulatedElements;   // counter: values put through a quantizer
extern const MetricInfo kClassifications;     // counter {policy}

// All of the above, in this order.
const std::vector<const MetricInfo*>& All();

}  // namespace metric
}  // namespace plumbline
