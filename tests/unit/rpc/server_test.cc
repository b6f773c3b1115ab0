#include "services/rpc/server.h"

#include <grpcpp/generic/generic_stub.h>
#include <unistd.h>

#include <thread>

#include "absl/strings/str_cat.h"
#include "google/protobuf/text_format.h"
#include "services/common/files.h"
#include "services/rpc/client.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/rpc/gated_service.h"

namespace plumbline {
namespace {

using ::testing::AllOf;
using testing::GatedClassifier;
using ::testing::HasSubstr;
using testing::HealthOf;
using testing::Serving;
using testing::StatusIs;
using Client = RpcClient<v1::PcrClassifier>;

class RpcServerTest : public ::testing::Test {
 protected:
  void Serve(v1::ServerConfig config, int gated = 0) {
    metrics_ = Metrics::Create("test");
    service_ = std::make_unique<GatedClassifier>(gated);
    ASSERT_OK_AND_ASSIGN(server_,
                         RpcServer::Start({.default_listen = "127.0.0.1:0",
                                           .config = config,
                                           .services = {Hosted<v1::PcrClassifier>(service_.get())},
                                           .metrics = metrics_.get()}));
    client_ = NewClient(20000);
  }
  std::unique_ptr<Client> NewClient(uint32_t timeout_ms) {
    v1::Endpoint endpoint;
    endpoint.set_address(server_->address());
    endpoint.set_timeout_ms(timeout_ms);
    return std::move(*Client::Create(endpoint));
  }
  static absl::Status Call(Client& client, const std::string& target = "") {
    v1::ClassifyRequest request;
    request.set_target(target);
    return client.Call(&Client::Stub::Classify, request).status();
  }
  absl::Status Call() { return Call(*client_); }

  // Destroyed from the bottom: client, server, service, metrics.
  std::unique_ptr<Metrics> metrics_;
  std::unique_ptr<GatedClassifier> service_;
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<Client> client_;
};

TEST_F(RpcServerTest, AnswersCallsAndHealthOfEachService) {
  Serve({});
  v1::ClassifyRequest request;
  request.set_target("echo");
  ASSERT_OK_AND_ASSIGN(auto response, client_->Call(&Client::Stub::Classify, request));
  EXPECT_EQ(response.explanation(), "echo");
  EXPECT_EQ(HealthOf(&client_->channel(), ""), Serving::kServing);
  EXPECT_EQ(HealthOf(&client_->channel(), "plumbline.v1.PcrClassifier"), Serving::kServing);
  EXPECT_EQ(HealthOf(&client_->channel(), "plumbline.v1.Nothing"), Serving::kNotFound);
}

TEST_F(RpcServerTest, ReflectionListsItsServices) {
  Serve({});
  // ServerReflectionRequest with an empty list_services (field 7).
  const std::string wire("\x3a\x00", 2);
  grpc::Slice slice(wire);
  grpc::ByteBuffer request(&slice, 1), response;
  grpc::ClientContext context;
  client_->Prepare(&context);
  const grpc::internal::RpcMethod method(
      "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
      grpc::internal::RpcMethod::BIDI_STREAMING);
  std::unique_ptr<grpc::ClientReaderWriter<grpc::ByteBuffer, grpc::ByteBuffer>> stream(
      grpc::internal::ClientReaderWriterFactory<grpc::ByteBuffer, grpc::ByteBuffer>::Create(
          &client_->channel(), method, &context));
  ASSERT_TRUE(stream->Write(request));
  ASSERT_TRUE(stream->Read(&response));
  stream->WritesDone();
  std::vector<grpc::Slice> slices;
  ASSERT_TRUE(response.Dump(&slices).ok());
  std::string bytes;
  for (const grpc::Slice& part : slices) bytes.append(part.begin(), part.end());
  EXPECT_THAT(bytes, AllOf(HasSubstr("plumbline.v1.PcrClassifier"),
                           HasSubstr("grpc.reflection.v1alpha.ServerReflection")));
}

TEST_F(RpcServerTest, DeadlineReachesTheHandlerAsCancellation) {
  Serve({}, /*gated=*/1);
  auto hurried = NewClient(100);
  EXPECT_THAT(Call(*hurried), StatusIs(absl::StatusCode::kDeadlineExceeded));
  service_->WaitUntilCancelled(1);
}

TEST_F(RpcServerTest, ErrorsNameTheAddressTheyCameFrom) {
  Serve({});
  EXPECT_THAT(Call(*client_, "fail"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr(server_->address()), HasSubstr("target 'fail'"))));
}

TEST_F(RpcServerTest, DrainLetsTheRunningCallFinishAndRefusesNewOnes) {
  Serve({}, /*gated=*/1);
  absl::Status first;
  std::thread caller([&] { first = Call(); });
  service_->WaitUntilEntered(1);
  std::thread drainer([&] { server_->Drain(); });
  // Calls pass the gate until the drain begins, then they are refused.
  absl::Status refused = absl::OkStatus();
  while (refused.ok()) refused = Call();
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(Call(*NewClient(2000)), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(metrics_->Page(), HasSubstr("plumb_serving 0"));
  service_->Open();
  caller.join();
  drainer.join();
  EXPECT_OK(first);
  server_->Drain();  // again: nothing to do
}

TEST_F(RpcServerTest, DrainCancelsCallsThatOutliveIt) {
  v1::ServerConfig config;
  config.set_drain_seconds(1);
  Serve(config, /*gated=*/1);
  absl::Status first;
  std::thread caller([&] { first = Call(); });
  service_->WaitUntilEntered(1);
  server_->Drain();
  service_->WaitUntilCancelled(1);
  caller.join();
  EXPECT_FALSE(first.ok());
}

TEST_F(RpcServerTest, OneCallMoreThanTheLimitIsResourceExhausted) {
  v1::ServerConfig config;
  config.set_max_concurrent_calls(2);
  Serve(config, /*gated=*/2);
  std::thread a([&] { EXPECT_OK(Call()); });
  std::thread b([&] { EXPECT_OK(Call()); });
  service_->WaitUntilEntered(2);
  EXPECT_THAT(Call(), StatusIs(absl::StatusCode::kResourceExhausted));
  service_->Open();
  a.join();
  b.join();
}

TEST_F(RpcServerTest, MessagesOverTheLimitAreRefused) {
  v1::ServerConfig config;
  config.set_max_message_mib(1);
  Serve(config);
  EXPECT_OK(Call(*client_, std::string(1000 << 10, 'x')));
  EXPECT_THAT(Call(*client_, std::string(1100 << 10, 'x')),
              StatusIs(absl::StatusCode::kResourceExhausted));
}

TEST_F(RpcServerTest, PortFileNamesWhatWasBound) {
  v1::ServerConfig config;
  const std::string path = absl::StrCat(::testing::TempDir(), "/ports", getpid());
  config.set_port_file(path);
  config.set_metrics_listen("127.0.0.1:0");
  Serve(config);
  ASSERT_OK_AND_ASSIGN(std::string lines, ReadFile(path));
  EXPECT_EQ(lines,
            absl::StrCat("grpc ", server_->port(), "\nmetrics ", server_->metrics_port(), "\n"));
  EXPECT_GT(server_->metrics_port(), 0);
  unlink(path.c_str());
}

TEST_F(RpcServerTest, TakenPortsAreSaid) {
  Serve({});
  GatedClassifier other(0);
  v1::ServerConfig config;
  config.set_listen(server_->address());
  EXPECT_THAT(RpcServer::Start({.config = config, .services = {Hosted<v1::PcrClassifier>(&other)}}),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr(server_->address())));
  config.set_listen("127.0.0.1:0");
  config.set_metrics_listen(server_->address());
  EXPECT_THAT(RpcServer::Start({.config = config,
                                .services = {Hosted<v1::PcrClassifier>(&other)},
                                .metrics = metrics_.get()}),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("metrics")));
}

TEST_F(RpcServerTest, BeyondLoopbackNeedsMutualTlsOrAnExplicitWord) {
  GatedClassifier service(0);
  const auto metrics = Metrics::Create("test");
  const auto start = [&](const v1::ServerConfig& config) {
    return RpcServer::Start({.default_listen = "127.0.0.1:0",
                             .config = config,
                             .services = {Hosted<v1::PcrClassifier>(&service)},
                             .metrics = metrics.get()})
        .status();
  };
  v1::ServerConfig config;
  for (const char* address : {"0.0.0.0:0", "[::]:0", "192.0.2.1:7070", "127.example.com:1"}) {
    config.set_listen(address);
    EXPECT_THAT(start(config), StatusIs(absl::StatusCode::kInvalidArgument,
                                        AllOf(HasSubstr(address), HasSubstr("insecure"))));
  }
  config.set_listen("127.0.0.1:0");
  config.set_metrics_listen("0.0.0.0:0");
  EXPECT_THAT(start(config),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("metrics_listen")));
  config.clear_metrics_listen();
  config.set_listen("0.0.0.0:0");
  config.set_insecure(true);
  EXPECT_OK(start(config));
  EXPECT_THAT(metrics->Page(), HasSubstr("plumb_insecure_listener 1"));
}

TEST_F(RpcServerTest, BadServerConfigsAreNamed) {
  GatedClassifier service(0);
  const std::pair<const char*, const char*> kBad[] = {
      {"listen: 'localhost'", "server.listen"},
      {"listen: ':7070'", "':7070'"},
      {"listen: '127.0.0.1:70707'", "70707"},
      {"listen: '127.0.0.1:http'", "http"},
      {"listen: '::1:7070'", "[::1]:0"},
      {"max_message_mib: 5000", "5000"},
      {"max_concurrent_calls: 1000000", "1000000"},
      {"drain_seconds: 100000", "100000"},
      {"log_level: 'chatty'", "'chatty'"},
      {"metrics_listen: '127.0.0.1:0'", "no metrics"},
      {"tls { certificate_file: 'a' }", "key_file"},
  };
  for (const auto& [text, names] : kBad) {
    v1::ServerConfig config;
    ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &config)) << text;
    EXPECT_THAT(RpcServer::Start({.default_listen = "127.0.0.1:0",
                                  .config = config,
                                  .services = {Hosted<v1::PcrClassifier>(&service)}}),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(names)))
        << text;
  }
}

TEST(Loopback, IsThisMachineOnly) {
  for (const char* address : {"127.0.0.1:1", "127.8.9.10:1", "localhost:1", "[::1]:1"}) {
    EXPECT_TRUE(IsLoopback(address)) << address;
  }
  for (const char* address : {"0.0.0.0:1", "[::]:1", "127.evil.org:1", "127.0.0.1.evil.org:1",
                              "10.0.0.1:1", "128.0.0.1:1", "localhost"}) {
    EXPECT_FALSE(IsLoopback(address)) << address;
  }
}

}  // namespace
}  // namespace plumbline
