#include "services/rpc/client.h"

#include "absl/strings/str_cat.h"
#include "services/rpc/tls.h"

namespace plumbline {

absl::StatusOr<std::shared_ptr<grpc::Channel>> CreateChannel(const v1::Endpoint& endpoint) {
  PLUMB_ASSIGN_OR_RETURN(HostPort host_port, SplitHostPort("address", endpoint.address()));
  if (host_port.port == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("address '", endpoint.address(), "' has port 0: name the server's port"));
  }
  if (!HasAnyTls(endpoint.tls()) && !endpoint.insecure() && !IsLoopbackHost(host_port.host)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "address '", endpoint.address(), "' is beyond this machine and would be reached in plain ",
        "text: set tls.client_ca_file (and certificate_file, key_file), or insecure: true"));
  }
  PLUMB_ASSIGN_OR_RETURN(auto credentials, ChannelCredentialsFrom(endpoint.tls()));
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxClientMessageMib << 20);
  arguments.SetMaxSendMessageSize(kMaxClientMessageMib << 20);
  // A restarted peer should be found within a second, not within gRPC's two minutes.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);  // services/rpc/retry.h decides, visibly
  return grpc::CreateCustomChannel(endpoint.address(), credentials, arguments);
}

absl::Duration CallTimeout(const v1::Endpoint& endpoint) {
  return endpoint.timeout_ms() == 0 ? kDefaultCallTimeout
                                    : absl::Milliseconds(endpoint.timeout_ms());
}

void PrepareContext(absl::Duration timeout, WaitForReady wait, grpc::ClientContext* context) {
  context->set_deadline(absl::ToChronoTime(absl::Now() + timeout));
  context->set_wait_for_ready(wait == WaitForReady::kYes);
}

}  // namespace plumbline
