#include "services/rpc/server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>

#include <mutex>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "google/protobuf/descriptor.h"
#include "services/common/files.h"
#include "services/common/logging.h"
#include "services/common/status_macros.h"
#include "services/rpc/rpc_interceptor.h"
#include "services/rpc/tls.h"

namespace plumbline {
namespace {

constexpr uint32_t kDefaultMaxMessageMib = 16;
constexpr uint32_t kMostMessageMib = 1024;
constexpr uint32_t kDefaultDrainSeconds = 20;
constexpr uint32_t kDefaultMaxConcurrentCalls = 256;

struct Listener {
  std::string address;
  std::string host;
  bool insecure_beyond_loopback = false;
};

// The rule: loopback, or mutual TLS, or an explicit insecure.
absl::StatusOr<Listener> CheckListen(const v1::ServerConfig& config, const std::string& fallback) {
  Listener listener;
  listener.address = config.listen().empty() ? fallback : config.listen();
  PLUMB_ASSIGN_OR_RETURN(HostPort parts, SplitHostPort("server.listen", listener.address));
  listener.host = parts.host;
  if (IsLoopbackHost(parts.host)) return listener;
  const v1::TlsFiles& tls = config.tls();
  const bool mutual =
      !tls.certificate_file().empty() && !tls.key_file().empty() && !tls.client_ca_file().empty();
  if (mutual) return listener;
  if (!config.insecure()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "server.listen '", listener.address,
        "' can be reached from other machines: set server.tls ",
        "(certificate_file, key_file and client_ca_file), or say server.insecure: true, or listen ",
        "on 127.0.0.1"));
  }
  listener.insecure_beyond_loopback = true;
  return listener;
}

absl::Status CheckMetricsListen(const v1::ServerConfig& config, const Metrics* metrics) {
  if (config.metrics_listen().empty()) return absl::OkStatus();
  if (metrics == nullptr) {
    return absl::InvalidArgumentError(
        "server.metrics_listen is set but this server has no metrics");
  }
  PLUMB_ASSIGN_OR_RETURN(HostPort parts,
                         SplitHostPort("server.metrics_listen", config.metrics_listen()));
  if (!IsLoopbackHost(parts.host) && !config.insecure()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "server.metrics_listen '", config.metrics_listen(),
        "' can be reached from other machines in plain text: say server.insecure: true",
        ", or listen on 127.0.0.1"));
  }
  return absl::OkStatus();
}

absl::Status CheckLimits(const v1::ServerConfig& config) {
  if (config.max_message_mib() > kMostMessageMib) {
    return absl::InvalidArgumentError(absl::StrCat(
        "server.max_message_mib must be 0..", kMostMessageMib, ", got ", config.max_message_mib()));
  }
  if (config.max_concurrent_calls() > 100000) {
    return absl::InvalidArgumentError(absl::StrCat(
        "server.max_concurrent_calls must be 0..100000, got ", config.max_concurrent_calls()));
  }
  const std::string& level = config.log_level();
  if (!level.empty() && level != "off" && spdlog::level::from_str(level) == spdlog::level::off) {
    return absl::InvalidArgumentError(absl::StrCat(
        "server.log_level must be trace, debug, info, warn, error or off, got '", level, "'"));
  }
  if (config.drain_seconds() > 86400) {
    return absl::InvalidArgumentError(
        absl::StrCat("server.drain_seconds must be 0..86400, got ", config.drain_seconds()));
  }
  return absl::OkStatus();
}

void AllowMethods(const std::vector<HostedService>& services, Metrics* metrics) {
  for (const HostedService& hosted : services) {
    const auto* service =
        google::protobuf::DescriptorPool::generated_pool()->FindServiceByName(hosted.full_name);
    for (int i = 0; service != nullptr && i < service->method_count(); ++i) {
      const std::string method = absl::StrCat(hosted.full_name, "/", service->method(i)->name());
      metrics->AllowLabelValue(metric::kRpcCalls, "method", method);
      metrics->AllowLabelValue(metric::kRpcSeconds, "method", method);
    }
  }
}

class RpcServerImpl final : public RpcServer {
 public:
  explicit RpcServerImpl(RpcServerOptions options) : options_(std::move(options)) {}
  ~RpcServerImpl() override { DrainFor(absl::ZeroDuration()); }

  absl::Status Serve();

  int port() const override { return port_; }
  int metrics_port() const override { return exposer_ ? exposer_->port() : 0; }
  std::string address() const override {
    const bool any = listener_.host == "0.0.0.0" || listener_.host == "::";
    const std::string host = any ? "127.0.0.1" : listener_.host;
    return absl::StrCat(absl::StrContains(host, ":") ? absl::StrCat("[", host, "]") : host, ":",
                        port_);
  }
  void Drain() override {
    const uint32_t seconds = options_.config.drain_seconds();
    DrainFor(absl::Seconds(seconds == 0 ? kDefaultDrainSeconds : seconds));
  }

 private:
  void Limit(grpc::ServerBuilder* builder);
  absl::Status WritePortFile() const;
  void DrainFor(absl::Duration patience);

  RpcServerOptions options_;
  Listener listener_;
  int port_ = 0;
  std::unique_ptr<Metrics::Exposer> exposer_;
  std::unique_ptr<grpc::Server> server_;
  std::once_flag drained_;
};

void RpcServerImpl::Limit(grpc::ServerBuilder* builder) {
  const v1::ServerConfig& config = options_.config;
  const uint32_t mib = config.max_message_mib();
  builder->SetMaxReceiveMessageSize(
      static_cast<int>((mib == 0 ? kDefaultMaxMessageMib : mib) << 20));
  builder->SetMaxSendMessageSize(-1);
  // Of N + 1 threads at most N can be in calls, because the last one must poll; the call that finds
  // no poller left is answered RESOURCE_EXHAUSTED. So the limit is exact.
  grpc::ResourceQuota quota("plumbline");
  quota.SetMaxThreads(MaxConcurrentCalls(config) + 1);
  builder->SetResourceQuota(quota);
  builder->SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);
  builder->SetSyncServerOption(grpc::ServerBuilder::MIN_POLLERS, 1);
  builder->SetSyncServerOption(grpc::ServerBuilder::MAX_POLLERS, 2);
  builder->AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
}

absl::Status RpcServerImpl::Serve() {
  const v1::ServerConfig& config = options_.config;
  PLUMB_RETURN_IF_ERROR(CheckLimits(config));
  PLUMB_ASSIGN_OR_RETURN(listener_, CheckListen(config, options_.default_listen));
  PLUMB_RETURN_IF_ERROR(CheckMetricsListen(config, options_.metrics));
  PLUMB_ASSIGN_OR_RETURN(auto credentials, ServerCredentialsFrom(config.tls()));
  static const bool kPluginsReady = [] {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    return true;
  }();
  (void)kPluginsReady;

  grpc::ServerBuilder builder;
  Limit(&builder);
  builder.AddListeningPort(listener_.address, credentials, &port_);
  for (const HostedService& hosted : options_.services) builder.RegisterService(hosted.service);
  if (options_.metrics != nullptr) {
    AllowMethods(options_.services, options_.metrics);
    std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> creators;
    creators.push_back(CallMetricsInterceptor(options_.metrics));
    builder.experimental().SetInterceptorCreators(std::move(creators));
  }
  server_ = builder.BuildAndStart();
  if (server_ == nullptr || port_ == 0) {
    return absl::UnavailableError(absl::StrCat("cannot listen at server.listen '",
                                               listener_.address,
                                               "': the port may be taken, the address may not be "
                                               "this machine's, or the TLS files may not ",
                                               "fit each other; port 0 takes any free port"));
  }
  if (options_.metrics != nullptr) {
    options_.metrics->Set(metric::kInsecureListener, {}, listener_.insecure_beyond_loopback);
    options_.metrics->Set(metric::kServing, {}, 1);
  }
  if (!config.metrics_listen().empty()) {
    PLUMB_ASSIGN_OR_RETURN(exposer_, options_.metrics->Expose(config.metrics_listen()));
  }
  for (const HostedService& hosted : options_.services) {
    server_->GetHealthCheckService()->SetServingStatus(hosted.full_name, true);
  }
  if (listener_.insecure_beyond_loopback) {
    spdlog::warn("serving PLAIN TEXT beyond this machine at {} because server.insecure is true",
                 listener_.address);
  }
  spdlog::info("serving at {}:{}, metrics port {}", listener_.host, port_, metrics_port());
  return WritePortFile();
}

absl::Status RpcServerImpl::WritePortFile() const {
  if (options_.config.port_file().empty()) return absl::OkStatus();
  std::string lines = absl::StrCat("grpc ", port_, "\n");
  if (exposer_) absl::StrAppend(&lines, "metrics ", exposer_->port(), "\n");
  return Annotate(WriteFileAtomically(options_.config.port_file(), lines), "server.port_file");
}

void RpcServerImpl::DrainFor(absl::Duration patience) {
  std::call_once(drained_, [&] {
    if (server_ == nullptr) return;
    if (options_.metrics != nullptr) options_.metrics->Set(metric::kServing, {}, 0);
    server_->GetHealthCheckService()->SetServingStatus(false);
    server_->Shutdown(absl::ToChronoTime(absl::Now() + patience));
    server_->Wait();
  });
}

}  // namespace

int MaxConcurrentCalls(const v1::ServerConfig& config) {
  const uint32_t calls = config.max_concurrent_calls();
  return static_cast<int>(calls == 0 ? kDefaultMaxConcurrentCalls : calls);
}

absl::StatusOr<std::unique_ptr<RpcServer>> RpcServer::Start(RpcServerOptions options) {
  auto server = std::make_unique<RpcServerImpl>(std::move(options));
  PLUMB_RETURN_IF_ERROR(server->Serve());
  return std::unique_ptr<RpcServer>(std::move(server));
}

bool IsLoopback(absl::string_view address) {
  const absl::StatusOr<HostPort> parts = SplitHostPort("address", address);
  return parts.ok() && IsLoopbackHost(parts->host);
}

}  // namespace plumbline
