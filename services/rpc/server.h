// The shell that every server shares: listening address and its safety, health, reflection, limits,
// metrics and graceful drain.
//
//   JudgeService service(...);
//   PLUMB_ASSIGN_OR_RETURN(auto server, RpcServer::Start({
//       .default_listen = "127.0.0.1:7074", .config = config.server(),
//       .services = {Hosted<v1::RefusalJudge>(&service)}, .metrics = metrics}));
//   ... server->port() ...
//   server->Drain();
#pragma once

#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/codegen/service_type.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "plumbline/v1/config.pb.h"
#include "services/rpc/metrics.h"

namespace plumbline {

// Where each service listens when its config says nothing.
inline constexpr char kCoordinatorListen[] = "127.0.0.1:7070";
inline constexpr char kWorkerListen[] = "127.0.0.1:7071";
inline constexpr char kCaptureListen[] = "127.0.0.1:7072";
inline constexpr char kQuantsimListen[] = "127.0.0.1:7073";
inline constexpr char kJudgeListen[] = "127.0.0.1:7074";
inline constexpr char kPcrListen[] = "127.0.0.1:7075";

struct HostedService {
  std::string full_name;   // "plumbline.v1.RefusalJudge"
  grpc::Service* service;  // not owned; outlives the server
};

// Hosted<v1::RefusalJudge>(&impl)
template <typename GeneratedService>
HostedService Hosted(grpc::Service* service) {
  return {GeneratedService::service_full_name(), service};
}

// How many calls a server with this configuration takes at a time.
int MaxConcurrentCalls(const v1::ServerConfig& config);

struct RpcServerOptions {
  std::string default_listen;  // used when config.listen is empty
  v1::ServerConfig config;
  std::vector<HostedService> services;
  Metrics* metrics =
      nullptr;  // not owned; null = no metrics, and config.metrics_listen must be empty
};

// Thread safe.
class RpcServer {
 public:
  // Serving when it returns: health says SERVING for "" and each service, the metrics page is up,
  // and config.port_file (if any) holds "grpc PORT" and "metrics PORT" lines. InvalidArgument:
  // malformed address, or one beyond loopback without mTLS files (certificate, key and client CA)
  // and without `insecure: true`. NotFound: a TLS file. Unavailable: the address is taken.
  static absl::StatusOr<std::unique_ptr<RpcServer>> Start(RpcServerOptions options);
  virtual ~RpcServer() = default;  // drains with no patience if Drain was not called

  virtual int port() const = 0;
  virtual int metrics_port() const = 0;  // 0 = no metrics page
  // "127.0.0.1:41234": where clients on this machine reach it.
  virtual std::string address() const = 0;

  // Health turns NOT_SERVING, new calls are refused (UNAVAILABLE), running ones may finish within
  // config.drain_seconds and are cancelled then. Returns when none runs. Idempotent.
  virtual void Drain() = 0;
};

// True for 127.0.0.0/8, ::1 and localhost ("host:port" or "[host]:port").
bool IsLoopback(absl::string_view address);

}  // namespace plumbline
