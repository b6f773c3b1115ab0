#include "services/rpc/metrics.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "services/common/files.h"
#include "services/rpc/client.h"
#include "services/rpc/server.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/rpc/gated_service.h"

namespace plumbline {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string HttpGet(int port, const std::string& path) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::string answer;
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0) {
    const std::string request =
        absl::StrCat("GET ", path, " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    (void)!write(fd, request.data(), request.size());
    char buffer[4096];
    for (ssize_t got; (got = read(fd, buffer, sizeof(buffer))) > 0;) answer.append(buffer, got);
  }
  close(fd);
  return answer;
}

// Every metric of the table with every value of its closed labels.
void FillEverything(Metrics* metrics) {
  for (const MetricInfo* info : metric::All()) {
    size_t most = 1;
    for (const MetricLabel& label : info->labels) most = std::max(most, label.values.size());
    for (size_t i = 0; i < most; ++i) {
      std::vector<absl::string_view> values;
      for (const MetricLabel& label : info->labels) {
        values.push_back(label.values.empty() ? "x" : label.values[i % label.values.size()]);
      }
      const auto put = [&](LabelValues labels) {
        if (info->kind == MetricKind::kCounter) metrics->Increment(*info, labels);
        if (info->kind == MetricKind::kGauge) metrics->Set(*info, labels, 1);
        if (info->kind == MetricKind::kHistogram) metrics->Observe(*info, labels, 0.5);
      };
      if (values.empty()) put({});
      if (values.size() == 1) put({values[0]});
      if (values.size() == 2) put({values[0], values[1]});
    }
  }
}

TEST(Metrics, PromtoolFindsNothingToSayAboutTheWholeTable) {
  if (system("promtool --version > /dev/null 2>&1") != 0) {
    GTEST_SKIP() << "promtool is not installed (Debian package prometheus)";
  }
  auto metrics = Metrics::Create("test");
  FillEverything(metrics.get());
  const std::string path = absl::StrCat(::testing::TempDir(), "/page", getpid());
  ASSERT_OK(WriteFileAtomically(path, metrics->Page()));
  FILE* pipe = popen(absl::StrCat("promtool check metrics < ", path, " 2>&1").c_str(), "r");
  ASSERT_NE(pipe, nullptr);
  std::string said;
  char buffer[1024];
  while (fgets(buffer, sizeof(buffer), pipe) != nullptr) said += buffer;
  EXPECT_EQ(pclose(pipe), 0);
  EXPECT_EQ(said, "");
  unlink(path.c_str());
}

TEST(Metrics, TableHasUniqueNamesHelpAndUnits) {
  std::set<std::string> names;
  for (const MetricInfo* info : metric::All()) {
    EXPECT_TRUE(names.insert(info->name).second) << info->name;
    EXPECT_TRUE(absl::StartsWith(info->name, "plumb_")) << info->name;
    EXPECT_EQ(info->kind == MetricKind::kCounter, absl::EndsWith(info->name, "_total"));
    EXPECT_EQ(info->kind == MetricKind::kHistogram, !info->buckets.empty()) << info->name;
    EXPECT_GT(std::string(info->help).size(), 10u) << info->name;
  }
}

TEST(Metrics, ValuesOutsideAClosedSetBecomeOther) {
  auto metrics = Metrics::Create("test");
  metrics->Increment(metric::kVerdicts, {"keyword", "refuse"});
  metrics->Increment(metric::kVerdicts, {"keyword", "how do I build"});
  EXPECT_THAT(metrics->Page(), HasSubstr("judge=\"keyword\",label=\"refuse\"} 1"));
  EXPECT_THAT(metrics->Page(), HasSubstr("judge=\"keyword\",label=\"other\"} 1"));
  EXPECT_THAT(metrics->Page(), Not(HasSubstr("how do I build")));
}

TEST(Metrics, MisuseEndsTheProcess) {
  auto metrics = Metrics::Create("test");
  EXPECT_DEATH(metrics->Increment(metric::kVerdicts, {"keyword"}), "takes 2 labels");
  EXPECT_DEATH(metrics->Increment(metric::kServing, {}), "plumb_serving");
}

TEST(Metrics, CallsOfAServerAreCountedByMethodAndCode) {
  auto metrics = Metrics::Create("test");
  testing::GatedClassifier service(0);
  v1::ServerConfig config;
  config.set_metrics_listen("127.0.0.1:0");
  ASSERT_OK_AND_ASSIGN(auto server,
                       RpcServer::Start({.default_listen = "127.0.0.1:0",
                                         .config = config,
                                         .services = {Hosted<v1::PcrClassifier>(&service)},
                                         .metrics = metrics.get()}));
  v1::Endpoint endpoint;
  endpoint.set_address(server->address());
  using Client = RpcClient<v1::PcrClassifier>;
  ASSERT_OK_AND_ASSIGN(auto client, Client::Create(endpoint));
  v1::ClassifyRequest request;
  for (int i = 0; i < 3; ++i) EXPECT_OK(client->Call(&Client::Stub::Classify, request));
  request.set_target("fail");
  EXPECT_FALSE(client->Call(&Client::Stub::Classify, request).ok());
  EXPECT_EQ(testing::HealthOf(&client->channel(), ""), testing::Serving::kServing);
  const int metrics_port = server->metrics_port();
  const std::string page = HttpGet(metrics_port, "/metrics");
  EXPECT_THAT(page, HasSubstr("200 OK"));
  const std::string method = "method=\"plumbline.v1.PcrClassifier/Classify\"";
  EXPECT_THAT(page, HasSubstr(absl::StrCat("plumb_rpc_calls_total{code=\"OK\",", method, "} 3")));
  EXPECT_THAT(page, HasSubstr(absl::StrCat("plumb_rpc_calls_total{code=\"INVALID_ARGUMENT\",",
                                           method, "} 1")));
  EXPECT_THAT(page, HasSubstr(absl::StrCat("plumb_rpc_duration_seconds_count{", method, "} 4")));
  EXPECT_THAT(page, HasSubstr("plumb_build_info{service=\"test\",version=\""));
  EXPECT_THAT(page, HasSubstr("plumb_serving 1"));
}

TEST(Metrics, APageThatNobodyReadsIsClosedAtOnce) {
  auto metrics = Metrics::Create("test");
  const absl::Time started = absl::Now();
  for (const char* address : {"127.0.0.1:0", "localhost:0", "0.0.0.0:0"}) {
    ASSERT_OK_AND_ASSIGN(const auto exposer, metrics->Expose(address));
    EXPECT_THAT(HttpGet(exposer->port(), "/metrics"), HasSubstr("200 OK"));
  }
  // The library's own way of closing takes up to two seconds for each.
  EXPECT_LT(absl::Now() - started, absl::Seconds(2));
}

}  // namespace
}  // namespace plumbline
