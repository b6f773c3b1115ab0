#include "services/rpc/client.h"

#include "google/protobuf/text_format.h"
#include "plumbline/v1/pcr.grpc.pb.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

using ::testing::HasSubstr;
using testing::StatusIs;

TEST(Channel, BadEndpointsAreNamed) {
  const std::pair<const char*, const char*> kBad[] = {
      {"", "HOST:PORT"},
      {"address: 'here'", "'here'"},
      {"address: '127.0.0.1:0'", "port 0"},
      {"address: 'judge.example.org:7074'", "insecure: true"},
      {"address: '127.0.0.1:1' tls { key_file: 'k' }", "together"},
  };
  for (const auto& [text, names] : kBad) {
    v1::Endpoint endpoint;
    ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &endpoint));
    EXPECT_THAT(CreateChannel(endpoint),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(names)));
  }
  v1::Endpoint endpoint;
  endpoint.set_address("127.0.0.1:1");
  endpoint.mutable_tls()->set_client_ca_file("/nonexistent/ca.pem");
  EXPECT_THAT(CreateChannel(endpoint),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/nonexistent/ca.pem")));
  endpoint.clear_tls();
  endpoint.set_address("judge.example.org:7074");
  endpoint.set_insecure(true);
  EXPECT_OK(CreateChannel(endpoint));
}

TEST(Channel, TimeoutComesFromTheEndpoint) {
  v1::Endpoint endpoint;
  EXPECT_EQ(CallTimeout(endpoint), absl::Seconds(30));
  endpoint.set_timeout_ms(1500);
  EXPECT_EQ(CallTimeout(endpoint), absl::Milliseconds(1500));
}

TEST(RpcClientTest, AnAbsentServerIsUnavailableAtOnceOrAtTheDeadlineAsChosen) {
  v1::Endpoint endpoint;
  // Nothing listens on the discard port here; a refused connection is immediate.
  endpoint.set_address("127.0.0.1:9");
  endpoint.set_timeout_ms(300);
  using Client = RpcClient<v1::PcrClassifier>;
  ASSERT_OK_AND_ASSIGN(auto quick, Client::Create(endpoint));
  EXPECT_THAT(quick->Call(&Client::Stub::Classify, v1::ClassifyRequest()),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("127.0.0.1:9")));
  ASSERT_OK_AND_ASSIGN(auto patient, Client::Create(endpoint, WaitForReady::kYes));
  EXPECT_THAT(patient->Call(&Client::Stub::Classify, v1::ClassifyRequest()),
              StatusIs(absl::StatusCode::kDeadlineExceeded));
}

}  // namespace
}  // namespace plumbline
