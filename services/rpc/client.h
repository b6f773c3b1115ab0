// Calling other services.
//
//   PLUMB_ASSIGN_OR_RETURN(auto pcr, RpcClient<v1::PcrClassifier>::Create(config.pcr()));
//   absl::StatusOr<v1::ClassifyResponse> answer =
//       pcr->Call(&v1::PcrClassifier::Stub::Classify, request);
//   // streams: build the context, then use the stub
//   grpc::ClientContext context;
//   pcr->Prepare(&context);
//   auto stream = pcr->stub().Something(&context, ...);
#pragma once

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "plumbline/v1/config.pb.h"
#include "services/common/status_macros.h"
#include "services/rpc/status.h"

namespace plumbline {

inline constexpr absl::Duration kDefaultCallTimeout = absl::Seconds(30);
inline constexpr int kMaxClientMessageMib = 64;

// Connects lazily: succeeds while the server is away. InvalidArgument: empty or malformed address,
// or plain text beyond loopback without `insecure: true`. NotFound: a TLS file.
// On this side tls.client_ca_file names the authority that signed the server's certificate, and
// certificate_file and key_file are what this process shows to a server that asks.
absl::StatusOr<std::shared_ptr<grpc::Channel>> CreateChannel(const v1::Endpoint& endpoint);

// timeout_ms of the endpoint, or the default.
absl::Duration CallTimeout(const v1::Endpoint& endpoint);

enum class WaitForReady { kNo, kYes };  // kYes: wait for the server within the deadline

// Sets deadline and readiness.
void PrepareContext(absl::Duration timeout, WaitForReady wait, grpc::ClientContext* context);

// Thread safe.
template <typename Service>
class RpcClient {
 public:
  using Stub = typename Service::Stub;

  static absl::StatusOr<std::unique_ptr<RpcClient>> Create(const v1::Endpoint& endpoint,
                                                           WaitForReady wait = WaitForReady::kNo) {
    PLUMB_ASSIGN_OR_RETURN(std::shared_ptr<grpc::Channel> channel, CreateChannel(endpoint));
    return std::unique_ptr<RpcClient>(new RpcClient(endpoint, wait, std::move(channel)));
  }

  Stub& stub() { return *stub_; }
  const std::string& address() const { return endpoint_.address(); }
  grpc::Channel& channel() { return *channel_; }
  void Prepare(grpc::ClientContext* context) const {
    PrepareContext(CallTimeout(endpoint_), wait_, context);
  }

  // One unary call with the endpoint's timeout. An error's message names the address. A call that
  // the server cancelled, as it does with calls that arrive while it drains, is Unavailable: nobody
  // here cancelled it, and trying again is right.
  template <typename Request, typename Response>
  absl::StatusOr<Response> Call(grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                                             Response*),
                                const Request& request) {
    grpc::ClientContext context;
    Prepare(&context);
    absl::StatusOr<Response> response = CallWith(&context, method, request);
    if (!absl::IsCancelled(response.status())) return response;
    return absl::UnavailableError(response.status().message());
  }

  // The same inside a server's handler: takes over the caller's deadline and cancellation.
  template <typename Request, typename Response>
  absl::StatusOr<Response> CallFrom(const grpc::ServerContext& server_context,
                                    grpc::Status (Stub::*method)(grpc::ClientContext*,
                                                                 const Request&, Response*),
                                    const Request& request) {
    auto context = ContextFrom(server_context);
    return CallWith(context.get(), method, request);
  }

  // A context with the earlier of the caller's deadline and the endpoint's timeout.
  std::unique_ptr<grpc::ClientContext> ContextFrom(
      const grpc::ServerContext& server_context) const {
    auto context = grpc::ClientContext::FromServerContext(server_context);
    const auto limit = absl::ToChronoTime(absl::Now() + CallTimeout(endpoint_));
    context->set_deadline(std::min(limit, server_context.deadline()));
    context->set_wait_for_ready(wait_ == WaitForReady::kYes);
    return context;
  }

 private:
  RpcClient(const v1::Endpoint& endpoint, WaitForReady wait, std::shared_ptr<grpc::Channel> channel)
      : endpoint_(endpoint),
        wait_(wait),
        channel_(std::move(channel)),
        stub_(Service::NewStub(channel_)) {}

  template <typename Request, typename Response>
  absl::StatusOr<Response> CallWith(grpc::ClientContext* context,
                                    grpc::Status (Stub::*method)(grpc::ClientContext*,
                                                                 const Request&, Response*),
                                    const Request& request) {
    Response response;
    const grpc::Status status = (stub_.get()->*method)(context, request, &response);
    if (status.ok()) return response;
    return Annotate(FromGrpcStatus(status), endpoint_.address());
  }

  v1::Endpoint endpoint_;
  WaitForReady wait_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<Stub> stub_;
};

}  // namespace plumbline
