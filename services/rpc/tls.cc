#include "services/rpc/tls.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "services/common/files.h"
#include "services/common/status_macros.h"

namespace plumbline {
namespace {

constexpr int64_t kMaxPemBytes = 1 << 20;

absl::StatusOr<std::string> ReadPem(absl::string_view field, const std::string& path) {
  absl::StatusOr<std::string> pem = ReadFile(path, kMaxPemBytes);
  if (!pem.ok()) return Annotate(pem.status(), field);
  if (!absl::StrContains(*pem, "-----BEGIN ")) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ": '", path, "' holds no PEM block (-----BEGIN ...)"));
  }
  return pem;
}

}  // namespace

absl::StatusOr<HostPort> SplitHostPort(absl::string_view field, absl::string_view address) {
  const size_t colon = address.rfind(':');
  int port = -1;
  HostPort result;
  if (colon != absl::string_view::npos && absl::SimpleAtoi(address.substr(colon + 1), &port)) {
    absl::string_view host = address.substr(0, colon);
    if (absl::StartsWith(host, "[") && absl::EndsWith(host, "]")) {
      host = host.substr(1, host.size() - 2);
    } else if (absl::StrContains(host, ":")) {
      host = "";  // a bare IPv6 address: where it ends and the port begins cannot be told
    }
    result = {std::string(host), port};
  }
  if (result.host.empty() || port < 0 || port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat(field,
                     " must be HOST:PORT with a port in 0..65535, such as 127.0.0.1:7070 or "
                     "[::1]:0; got '",
                     address, "'"));
  }
  return result;
}

bool IsLoopbackHost(absl::string_view host) {
  if (host == "localhost" || host == "::1") return true;
  // 127.0.0.0/8 in digits only: "127.example.com" is somebody's machine.
  return absl::StartsWith(host, "127.") && std::count(host.begin(), host.end(), '.') == 3 &&
         host.find_first_not_of("0123456789.") == absl::string_view::npos;
}

bool HasAnyTls(const v1::TlsFiles& tls) {
  return !tls.certificate_file().empty() || !tls.key_file().empty() ||
         !tls.client_ca_file().empty();
}

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> ServerCredentialsFrom(
    const v1::TlsFiles& tls) {
  if (!HasAnyTls(tls)) return grpc::InsecureServerCredentials();
  if (tls.certificate_file().empty() || tls.key_file().empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("server.tls needs certificate_file and key_file together; got '",
                     tls.certificate_file(), "' and '", tls.key_file(), "'"));
  }
  grpc::SslServerCredentialsOptions options(
      tls.client_ca_file().empty() ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
                                   : GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  PLUMB_ASSIGN_OR_RETURN(std::string certificate,
                         ReadPem("server.tls.certificate_file", tls.certificate_file()));
  PLUMB_ASSIGN_OR_RETURN(std::string key, ReadPem("server.tls.key_file", tls.key_file()));
  if (!tls.client_ca_file().empty()) {
    PLUMB_ASSIGN_OR_RETURN(options.pem_root_certs,
                           ReadPem("server.tls.client_ca_file", tls.client_ca_file()));
  }
  options.pem_key_cert_pairs.push_back({std::move(key), std::move(certificate)});
  return grpc::SslServerCredentials(options);
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> ChannelCredentialsFrom(
    const v1::TlsFiles& tls) {
  if (!HasAnyTls(tls)) return grpc::InsecureChannelCredentials();
  grpc::SslCredentialsOptions options;
  if (tls.certificate_file().empty() != tls.key_file().empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("tls needs certificate_file and key_file together, or neither; got '",
                     tls.certificate_file(), "' and '", tls.key_file(), "'"));
  }
  if (!tls.certificate_file().empty()) {
    PLUMB_ASSIGN_OR_RETURN(options.pem_cert_chain,
                           ReadPem("tls.certificate_file", tls.certificate_file()));
    PLUMB_ASSIGN_OR_RETURN(options.pem_private_key, ReadPem("tls.key_file", tls.key_file()));
  }
  // On the calling side the same field names the authority that signed the server's certificate.
  if (!tls.client_ca_file().empty()) {
    PLUMB_ASSIGN_OR_RETURN(options.pem_root_certs,
                           ReadPem("tls.client_ca_file", tls.client_ca_file()));
  }
  return grpc::SslCredentials(options);
}

}  // namespace plumbline
