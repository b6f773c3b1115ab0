// Reading TLS files and the rule for addresses beyond this machine. Internal to services/rpc.
#pragma once

#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "plumbline/v1/config.pb.h"

namespace plumbline {

struct HostPort {
  std::string host;  // without brackets
  int port = 0;
};

// "host:port", "[v6]:port". InvalidArgument naming `field` and the address.
absl::StatusOr<HostPort> SplitHostPort(absl::string_view field, absl::string_view address);
bool IsLoopbackHost(absl::string_view host);

bool HasAnyTls(const v1::TlsFiles& tls);

// `field` stands in messages: "server.tls".
absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> ServerCredentialsFrom(
    const v1::TlsFiles& tls);
absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> ChannelCredentialsFrom(
    const v1::TlsFiles& tls);

}  // namespace plumbline
