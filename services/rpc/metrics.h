// The metrics of one process: injected, never global.
//
//   auto metrics = Metrics::Create("judge");
//   metrics->Increment(metric::kVerdicts, {"keyword", "refuse"});
//   metrics->Set(metric::kWorkerActive, {}, 17);
//   metrics->Observe(metric::kRpcSeconds, {"Judge"}, 0.012);
//
// Thread safe. Label values outside a label's closed set are exported as "other", so no text of a
// user can become a label. A wrong number of labels, or Increment of a histogram, ends the process:
// it is a bug that every test of the caller hits.
#pragma once

#include <initializer_list>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/rpc/metric_names.h"

namespace plumbline {

using LabelValues = std::initializer_list<absl::string_view>;

class Metrics {
 public:
  // service: "coordinator", "worker", "capture", "quantsim", "judge", "pcr" or "test". Exports
  // build_info.
  static std::unique_ptr<Metrics> Create(absl::string_view service);
  virtual ~Metrics() = default;

  virtual void Increment(const MetricInfo& info, LabelValues labels, double by = 1) = 0;
  virtual void Set(const MetricInfo& info, LabelValues labels, double value) = 0;
  virtual void Add(const MetricInfo& info, LabelValues labels, double delta) = 0;  // gauges
  virtual void Observe(const MetricInfo& info, LabelValues labels, double value) = 0;

  // Adds a value to the closed set of a label whose table entry is empty. Call before serving.
  virtual void AllowLabelValue(const MetricInfo& info, absl::string_view label,
                               absl::string_view value) = 0;

  // The page as Prometheus reads it.
  virtual std::string Page() const = 0;

  // Serves the page at http://address/metrics until the returned object dies. Unavailable when the
  // address cannot be bound.
  class Exposer {
   public:
    virtual ~Exposer() = default;
    virtual int port() const = 0;
  };
  virtual absl::StatusOr<std::unique_ptr<Exposer>> Expose(const std::string& address) = 0;
};

// "0.1.0": the version of this build.
absl::string_view BuildVersion();

}  // namespace plumbline
