// Mutual TLS with certificates made on the spot.
#include <unistd.h>

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "services/common/files.h"
#include "services/rpc/client.h"
#include "services/rpc/server.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/rpc/gated_service.h"

namespace plumbline {
namespace {

using ::testing::HasSubstr;
using testing::StatusIs;
using Client = RpcClient<v1::PcrClassifier>;

class MutualTls : public ::testing::Test {
 protected:
  void SetUp() override {
    if (system("openssl version > /dev/null 2>&1") != 0) {
      GTEST_SKIP() << "openssl's command is not installed";
    }
    folder_ = absl::StrCat(::testing::TempDir(), "/tls", getpid());
    ASSERT_OK(MakeDirectories(folder_, 0700));
    Openssl(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=ca "
        "-keyout ca.key -out ca.pem");
    ASSERT_OK(WriteFileAtomically(folder_ + "/san", "subjectAltName=IP:127.0.0.1,DNS:localhost\n"));
    for (const char* name : {"server", "client"}) {
      Openssl(absl::StrCat("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=",
                           name, " -keyout ", name, ".key -out ", name, ".csr"));
      Openssl(absl::StrCat("x509 -req -in ", name, ".csr -CA ca.pem -CAkey ca.key -CAcreateserial ",
                           "-days 2 -extfile san -out ", name, ".pem"));
    }
  }
  void TearDown() override {
    if (!folder_.empty()) (void)!system(absl::StrCat("rm -r ", folder_).c_str());
  }
  void Openssl(const std::string& arguments) {
    const std::string command =
        absl::StrCat("cd ", folder_, " && openssl ", arguments, " > openssl.log 2>&1");
    ASSERT_EQ(system(command.c_str()), 0) << command;
  }
  v1::TlsFiles Files(const std::string& name) const {
    v1::TlsFiles files;
    if (!name.empty()) {
      files.set_certificate_file(absl::StrCat(folder_, "/", name, ".pem"));
      files.set_key_file(absl::StrCat(folder_, "/", name, ".key"));
    }
    files.set_client_ca_file(folder_ + "/ca.pem");
    return files;
  }
  absl::Status CallWith(const v1::TlsFiles* tls, int port) {
    v1::Endpoint endpoint;
    endpoint.set_address(absl::StrCat("127.0.0.1:", port));
    endpoint.set_timeout_ms(5000);
    if (tls != nullptr) *endpoint.mutable_tls() = *tls;
    auto client = Client::Create(endpoint);
    if (!client.ok()) return client.status();
    return (*client)->Call(&Client::Stub::Classify, v1::ClassifyRequest()).status();
  }
  std::string folder_;
};

TEST_F(MutualTls, AllowsAnyAddressAndOnlyCertifiedClients) {
  testing::GatedClassifier service(0);
  v1::ServerConfig config;
  config.set_listen("0.0.0.0:0");
  *config.mutable_tls() = Files("server");
  ASSERT_OK_AND_ASSIGN(
      auto server,
      RpcServer::Start({.config = config, .services = {Hosted<v1::PcrClassifier>(&service)}}));
  const v1::TlsFiles certified = Files("client"), nameless = Files("");
  EXPECT_OK(CallWith(&certified, server->port()));
  EXPECT_THAT(CallWith(&nameless, server->port()), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(CallWith(nullptr, server->port()), StatusIs(absl::StatusCode::kUnavailable));
}

TEST_F(MutualTls, BeyondLoopbackWithoutAClientAuthorityIsRefused) {
  testing::GatedClassifier service(0);
  v1::ServerConfig config;
  config.set_listen("0.0.0.0:0");
  *config.mutable_tls() = Files("server");
  config.mutable_tls()->clear_client_ca_file();
  EXPECT_THAT(
      RpcServer::Start({.config = config, .services = {Hosted<v1::PcrClassifier>(&service)}}),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("client_ca_file")));
}

TEST_F(MutualTls, FilesThatAreMissingOrNoPemAreNamed) {
  testing::GatedClassifier service(0);
  v1::ServerConfig config;
  config.set_listen("127.0.0.1:0");
  *config.mutable_tls() = Files("server");
  config.mutable_tls()->set_key_file(folder_ + "/nothing.key");
  const auto start = [&] {
    return RpcServer::Start({.config = config, .services = {Hosted<v1::PcrClassifier>(&service)}})
        .status();
  };
  EXPECT_THAT(start(), StatusIs(absl::StatusCode::kNotFound, HasSubstr("nothing.key")));
  config.mutable_tls()->set_key_file(folder_ + "/san");
  EXPECT_THAT(start(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no PEM")));
  config.mutable_tls()->set_key_file(folder_ + "/client.key");
  EXPECT_FALSE(start().ok());  // a key that does not fit the certificate
}

}  // namespace
}  // namespace plumbline
