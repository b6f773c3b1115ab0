#include "services/rpc/rpc_interceptor.h"

#include <chrono>

#include "absl/strings/string_view.h"

namespace plumbline {
namespace {

using grpc::experimental::InterceptionHookPoints;
using grpc::experimental::Interceptor;
using grpc::experimental::InterceptorBatchMethods;
using grpc::experimental::ServerRpcInfo;

// Steady time, not the injected clock: it measures this process's own latency.
using SteadyClock = std::chrono::steady_clock;

class CallCounter final : public Interceptor {
 public:
  CallCounter(Metrics* metrics, absl::string_view method) : metrics_(metrics), method_(method) {
    if (!method_.empty() && method_.front() == '/') method_.remove_prefix(1);
    metrics_->Add(metric::kRpcInFlight, {}, 1);
  }
  ~CallCounter() override { metrics_->Add(metric::kRpcInFlight, {}, -1); }

  void Intercept(InterceptorBatchMethods* methods) override {
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_STATUS)) {
      const char* code = GrpcCodeName(methods->GetSendStatus().error_code());
      const std::chrono::duration<double> seconds = SteadyClock::now() - start_;
      metrics_->Increment(metric::kRpcCalls, {method_, code});
      metrics_->Observe(metric::kRpcSeconds, {method_}, seconds.count());
    }
    methods->Proceed();
  }

 private:
  Metrics* metrics_;
  absl::string_view method_;  // gRPC's own string, which outlives the call
  SteadyClock::time_point start_ = SteadyClock::now();
};

class Factory final : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  explicit Factory(Metrics* metrics) : metrics_(metrics) {}
  Interceptor* CreateServerInterceptor(ServerRpcInfo* info) override {
    return new CallCounter(metrics_, info->method() == nullptr ? "" : info->method());
  }

 private:
  Metrics* metrics_;
};

}  // namespace

std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> CallMetricsInterceptor(
    Metrics* metrics) {
  return std::make_unique<Factory>(metrics);
}

const char* GrpcCodeName(int code) {
  static constexpr const char* kNames[] = {"OK",
                                           "CANCELLED",
                                           "UNKNOWN",
                                           "INVALID_ARGUMENT",
                                           "DEADLINE_EXCEEDED",
                                           "NOT_FOUND",
                                           "ALREADY_EXISTS",
                                           "PERMISSION_DENIED",
                                           "RESOURCE_EXHAUSTED",
                                           "FAILED_PRECONDITION",
                                           "ABORTED",
                                           "OUT_OF_RANGE",
                                           "UNIMPLEMENTED",
                                           "INTERNAL",
                                           "UNAVAILABLE",
                                           "DATA_LOSS",
                                           "UNAUTHENTICATED"};
  return code >= 0 && code < static_cast<int>(std::size(kNames)) ? kNames[code] : "UNKNOWN";
}

}  // namespace plumbline
