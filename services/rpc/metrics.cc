#include "services/rpc/metrics.h"

#include <netdb.h>
#include <prometheus/exposer.h>
#include <prometheus/family.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "services/rpc/tls.h"

namespace plumbline {
namespace {

constexpr std::chrono::milliseconds kKnockPause{10};

using Labels = std::map<std::string, std::string>;

[[noreturn]] void Bug(const MetricInfo& info, absl::string_view what) {
  fprintf(stderr, "metric %s: %s\n", info.name, std::string(what).c_str());
  abort();
}

// Connects to a listener of this process and hangs up. Failing is fine.
void Knock(const std::string& host, int port) {
  const bool any = host == "0.0.0.0" || host == "::";
  addrinfo wanted{};
  wanted.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const char* name = any ? "localhost" : host.c_str();
  if (getaddrinfo(name, std::to_string(port).c_str(), &wanted, &found) != 0) return;
  for (const addrinfo* at = found; at != nullptr; at = at->ai_next) {
    const int fd = socket(at->ai_family, at->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) continue;
    (void)connect(fd, at->ai_addr, at->ai_addrlen);
    close(fd);
  }
  freeaddrinfo(found);
}

class ExposerImpl final : public Metrics::Exposer {
 public:
  ExposerImpl(const std::string& address, const std::shared_ptr<prometheus::Registry>& registry)
      : exposer_(std::make_unique<prometheus::Exposer>(address, 1)) {
    exposer_->RegisterCollectable(registry);
    if (auto parts = SplitHostPort("metrics", address); parts.ok()) host_ = parts->host;
  }
  // The HTTP library's listener sees that it shall stop only when its poll returns, after up to two
  // seconds or with a connection.
  ~ExposerImpl() override {
    const int bound = port();
    std::jthread knocking([&](const std::stop_token& stopped) {
      while (!stopped.stop_requested()) {
        Knock(host_, bound);
        std::this_thread::sleep_for(kKnockPause);
      }
    });
    exposer_.reset();
  }
  int port() const override { return exposer_->GetListeningPorts().at(0); }

 private:
  std::unique_ptr<prometheus::Exposer> exposer_;
  std::string host_ = "localhost";
};

class MetricsImpl final : public Metrics {
 public:
  void Increment(const MetricInfo& info, LabelValues labels, double by) override {
    Require(info, MetricKind::kCounter);
    FamilyOf<prometheus::Counter>(info).Add(LabelsOf(info, labels)).Increment(by);
  }
  void Set(const MetricInfo& info, LabelValues labels, double value) override {
    Require(info, MetricKind::kGauge);
    FamilyOf<prometheus::Gauge>(info).Add(LabelsOf(info, labels)).Set(value);
  }
  void Add(const MetricInfo& info, LabelValues labels, double delta) override {
    Require(info, MetricKind::kGauge);
    FamilyOf<prometheus::Gauge>(info).Add(LabelsOf(info, labels)).Increment(delta);
  }
  void Observe(const MetricInfo& info, LabelValues labels, double value) override {
    Require(info, MetricKind::kHistogram);
    FamilyOf<prometheus::Histogram>(info).Add(LabelsOf(info, labels), info.buckets).Observe(value);
  }

  void AllowLabelValue(const MetricInfo& info, absl::string_view label,
                       absl::string_view value) override {
    std::lock_guard<std::mutex> lock(mutex_);
    allowed_[absl::StrCat(info.name, "/", label)].insert(std::string(value));
  }

  std::string Page() const override {
    return prometheus::TextSerializer().Serialize(registry_->Collect());
  }

  absl::StatusOr<std::unique_ptr<Exposer>> Expose(const std::string& address) override {
    try {
      return std::unique_ptr<Exposer>(new ExposerImpl(address, registry_));
    } catch (const std::exception& error) {
      return absl::UnavailableError(absl::StrCat("cannot serve metrics at '", address,
                                                 "': ", error.what(),
                                                 "; is the port taken? Port 0 takes any free one"));
    }
  }

 private:
  static void Require(const MetricInfo& info, MetricKind kind) {
    if (info.kind != kind) Bug(info, "used as another kind than its table entry says");
  }

  Labels LabelsOf(const MetricInfo& info, LabelValues values) const {
    if (values.size() != info.labels.size()) {
      Bug(info, absl::StrCat("takes ", info.labels.size(), " labels, got ", values.size()));
    }
    Labels labels;
    auto value = values.begin();
    for (const MetricLabel& label : info.labels) {
      labels[label.name] = IsAllowed(info, label, *value) ? std::string(*value) : "other";
      ++value;
    }
    return labels;
  }

  bool IsAllowed(const MetricInfo& info, const MetricLabel& label, absl::string_view value) const {
    const auto& closed = label.values;
    if (std::find(closed.begin(), closed.end(), value) != closed.end()) return true;
    std::lock_guard<std::mutex> lock(mutex_);
    const auto extra = allowed_.find(absl::StrCat(info.name, "/", label.name));
    return extra != allowed_.end() && extra->second.count(std::string(value)) > 0;
  }

  template <typename T>
  prometheus::Family<T>& FamilyOf(const MetricInfo& info) {
    std::lock_guard<std::mutex> lock(mutex_);
    void*& family = families_[info.name];
    if (family == nullptr) family = &Build(info, static_cast<T*>(nullptr));
    return *static_cast<prometheus::Family<T>*>(family);
  }
  prometheus::Family<prometheus::Counter>& Build(const MetricInfo& info, prometheus::Counter*) {
    return prometheus::BuildCounter().Name(info.name).Help(info.help).Register(*registry_);
  }
  prometheus::Family<prometheus::Gauge>& Build(const MetricInfo& info, prometheus::Gauge*) {
    return prometheus::BuildGauge().Name(info.name).Help(info.help).Register(*registry_);
  }
  prometheus::Family<prometheus::Histogram>& Build(const MetricInfo& info, prometheus::Histogram*) {
    return prometheus::BuildHistogram().Name(info.name).Help(info.help).Register(*registry_);
  }

  // Shared with the exposer, which keeps weak references only.
  std::shared_ptr<prometheus::Registry> registry_ = std::make_shared<prometheus::Registry>();
  mutable std::mutex mutex_;
  std::map<std::string, void*> families_;                 // guarded by mutex_
  std::map<std::string, std::set<std::string>> allowed_;  // guarded by mutex_
};

}  // namespace

std::unique_ptr<Metrics> Metrics::Create(absl::string_view service) {
  auto metrics = std::make_unique<MetricsImpl>();
  metrics->AllowLabelValue(metric::kBuildInfo, "version", BuildVersion());
  metrics->Set(metric::kBuildInfo, {service, BuildVersion()}, 1);
  return metrics;
}

}  // namespace plumbline
