#include "services/rpc/config.h"

#include <unistd.h>

#include "plumbline/v1/config.pb.h"
#include "plumbline/v1/study.pb.h"
#include "services/common/files.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::StatusIs;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

TEST(Config, ReadsTextProtoAndJsonAlike) {
  v1::WorkerConfig text, json;
  ASSERT_OK(ParseConfig("t", R"(server { listen: "127.0.0.1:0" drain_seconds: 3 } # comment
                                 model_roots: "a" model_roots: "b" threads: 2)",
                        ConfigFormat::kText, &text));
  ASSERT_OK(ParseConfig("j", R"({"server": {"listen": "127.0.0.1:0", "drainSeconds": 3},
                                 "model_roots": ["a", "b"], "threads": 2})",
                        ConfigFormat::kJson, &json));
  EXPECT_EQ(ConfigText(text), ConfigText(json));
  EXPECT_EQ(ConfigDigest(text), ConfigDigest(json));
  EXPECT_EQ(text.server().drain_seconds(), 3u);
}

TEST(Config, PrintedConfigReadsBack) {
  v1::ClusterConfig config, back;
  ASSERT_OK(ApplyOverride("workers[0].model_roots[0]=a \"quoted\" one", &config));
  ASSERT_OK(ApplyOverride("coordinator.audit_fraction=0.25", &config));
  ASSERT_OK(ParseConfig("printed", ConfigText(config), ConfigFormat::kText, &back));
  EXPECT_EQ(ConfigDigest(config), ConfigDigest(back));
}

TEST(Config, DigestChangesWithEveryFieldAndWithTheMessage) {
  v1::JudgeConfig a, b;
  EXPECT_EQ(ConfigDigest(a), ConfigDigest(b));
  b.mutable_server()->set_drain_seconds(1);
  EXPECT_NE(ConfigDigest(a), ConfigDigest(b));
  EXPECT_NE(ConfigDigest(v1::JudgeConfig()), ConfigDigest(v1::PcrConfig()));
}

TEST(Config, FormatGoesByExtensionThenByContent) {
  EXPECT_EQ(GuessConfigFormat("a.json", "x: 1"), ConfigFormat::kJson);
  EXPECT_EQ(GuessConfigFormat("a.txtpb", "{}"), ConfigFormat::kText);
  EXPECT_EQ(GuessConfigFormat("a.conf", "\n  {\"a\": 1}"), ConfigFormat::kJson);
  EXPECT_EQ(GuessConfigFormat("a.conf", "server {}"), ConfigFormat::kText);
}

struct BadConfig {
  const char* text;
  ConfigFormat format;
  const char* names;  // what the error must name
};

TEST(Config, EachMistakeIsNamed) {
  const BadConfig kBad[] = {
      {"sever { }", ConfigFormat::kText, "sever"},
      {"server { listn: \"a\" }", ConfigFormat::kText, "listn"},
      {"server { drain_seconds: -1 }", ConfigFormat::kText, "drain_seconds"},
      {"server { drain_seconds: 5000000000 }", ConfigFormat::kText, "5000000000"},
      {"server { drain_seconds: 1.5 }", ConfigFormat::kText, "1.5"},
      {"server { insecure: maybe }", ConfigFormat::kText, "maybe"},
      {"server { listen: \"a\" listen: \"b\" }", ConfigFormat::kText, "listen"},
      {"server {", ConfigFormat::kText, "line 1"},
      {"server { listen: \"a }", ConfigFormat::kText, "line 1"},
      {"threads: \"2\"", ConfigFormat::kText, "threads"},
      {"{\"sever\": {}}", ConfigFormat::kJson, "sever"},
      {"{\"server\": {\"listn\": \"a\"}}", ConfigFormat::kJson, "listn"},
      {"{\"threads\": -2}", ConfigFormat::kJson, "-2"},
      {"{\"threads\": \"two\"}", ConfigFormat::kJson, "two"},
      {"{\"server\": []}", ConfigFormat::kJson, "server"},
      {"{\"server\": {\"insecure\": \"maybe\"}}", ConfigFormat::kJson, "maybe"},
      {"{\"threads\": 2", ConfigFormat::kJson, "Expected , or }"},
      {"{\"threads\": 2} x", ConfigFormat::kJson, "x"},
  };
  for (const BadConfig& bad : kBad) {
    v1::WorkerConfig config;
    config.set_threads(77);
    EXPECT_THAT(ParseConfig("cfg", bad.text, bad.format, &config),
                StatusIs(kInvalid, AllOf(HasSubstr(bad.names), HasSubstr("config cfg"),
                                         HasSubstr("plumbline.v1.WorkerConfig"))))
        << bad.text;
    EXPECT_EQ(config.threads(), 77u) << "left as it was";
  }
}

TEST(Config, UnknownEnumValuesAreErrorsByNameAndByNumber) {
  v1::Study study;
  EXPECT_THAT(ParseConfig("c", "policy: POLICY_NICE", ConfigFormat::kText, &study),
              StatusIs(kInvalid, HasSubstr("POLICY_NICE")));
  EXPECT_THAT(ParseConfig("c", "policy: 9", ConfigFormat::kText, &study),
              StatusIs(kInvalid, HasSubstr("9")));
  EXPECT_THAT(ParseConfig("c", "{\"policy\": \"POLICY_NICE\"}", ConfigFormat::kJson, &study),
              StatusIs(kInvalid, HasSubstr("POLICY_NICE")));
  EXPECT_THAT(ParseConfig("c", "{\"policy\": 9}", ConfigFormat::kJson, &study),
              StatusIs(kInvalid, AllOf(HasSubstr("policy"), HasSubstr("9"))));
  EXPECT_THAT(ParseConfig("c", R"({"promptSets": [{"inlinePrompts": [{"split": 17}]}]})",
                          ConfigFormat::kJson, &study),
              StatusIs(kInvalid, HasSubstr("prompt_sets[0].inline_prompts[0].split")));
  ASSERT_OK(ParseConfig("c", "policy: POLICY_PAPER", ConfigFormat::kText, &study));
  EXPECT_EQ(study.policy(), v1::POLICY_PAPER);
}

TEST(Config, FilesThatAreMissingOrTooLargeSaySo) {
  v1::JudgeConfig config;
  EXPECT_THAT(LoadConfigFile("/nonexistent/judge.txtpb", &config),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/nonexistent/judge.txtpb")));
  const std::string path = ::testing::TempDir() + "/large" + std::to_string(getpid()) + ".txtpb";
  ASSERT_OK(WriteFileAtomically(path, std::string(5 << 20, '#')));
  EXPECT_THAT(LoadConfigFile(path, &config), StatusIs(absl::StatusCode::kResourceExhausted));
  unlink(path.c_str());
}

TEST(Override, SetsNestedRepeatedAndEnumFields) {
  v1::ClusterConfig cluster;
  ASSERT_OK(ApplyOverride("coordinator.server.listen=127.0.0.1:1", &cluster));
  ASSERT_OK(ApplyOverride("workers[0].threads=1", &cluster));
  ASSERT_OK(ApplyOverride("workers.1.threads=2", &cluster));
  ASSERT_OK(ApplyOverride("workers[0].model_roots[0]=a=b", &cluster));
  ASSERT_OK(ApplyOverride("workers[0].model_roots[0]=c", &cluster));
  ASSERT_OK(ApplyOverride("judge.server.insecure=true", &cluster));
  EXPECT_EQ(cluster.coordinator().server().listen(), "127.0.0.1:1");
  EXPECT_EQ(cluster.workers(1).threads(), 2u);
  EXPECT_THAT(cluster.workers(0).model_roots(), ::testing::ElementsAre("c"));
  EXPECT_TRUE(cluster.judge().server().insecure());
  v1::Study study;
  ASSERT_OK(ApplyOverride("policy=POLICY_PAPER", &study));
  ASSERT_OK(ApplyOverride("decoding.sampling.temperature=0.5", &study));
  ASSERT_OK(ApplyOverride("seed=18446744073709551615", &study));
  ASSERT_OK(ApplyOverride("target=a=b.c", &study));
  EXPECT_EQ(study.policy(), v1::POLICY_PAPER);
  EXPECT_EQ(study.decoding().sampling().temperature(), 0.5);
  EXPECT_EQ(study.seed(), ~uint64_t{0});
  EXPECT_EQ(study.target(), "a=b.c");
}

TEST(Override, EachMistakeIsNamed) {
  const std::pair<const char*, const char*> kBad[] = {
      {"server.listn=a", "unknown field 'listn'"},
      {"nothing=1", "it has: server worker_id"},
      {"server=1", "is a message"},
      {"threads=two", "'two'"},
      {"threads=-1", "0..4294967295"},
      {"threads=", "''"},
      {"threads=4294967296", "4294967296"},
      {"server.insecure=1", "true or false"},
      {"model_roots=a", "is a list of 0"},
      {"model_roots[1]=a", "got '1'"},
      {"model_roots[-1]=a", "got '-1'"},
      {"model_roots[x]=a", "got 'x'"},
      {"threads.more=1", "has no part 'more'"},
      {"server..listen=a", "empty part"},
      {"=a", "path=value"},
      {"threads", "path=value"},
  };
  for (const auto& [assignment, names] : kBad) {
    v1::WorkerConfig config;
    EXPECT_THAT(ApplyOverride(assignment, &config),
                StatusIs(kInvalid, AllOf(HasSubstr(names), HasSubstr(assignment))));
    EXPECT_EQ(config.ByteSizeLong(), 0u) << assignment << " left something behind";
  }
  v1::Study study;
  EXPECT_THAT(ApplyOverride("policy=POLICY_NICE", &study),
              StatusIs(kInvalid, HasSubstr("POLICY_PLUMBLINE")));
  EXPECT_THAT(ApplyOverride("flip_limit=nan", &study), StatusIs(kInvalid, HasSubstr("nan")));
}

}  // namespace
}  // namespace plumbline
