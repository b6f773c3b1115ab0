#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "services/engine/model_bundle.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

using ::plumbline::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Json = nlohmann::json;

Json Sound() {
  return Json::parse(R"({"model_type": "llama", "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "hidden_size": 64, "intermediate_size": 96, "vocab_size": 300,
    "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "eos_token_id": 2, "bos_token_id": null})");
}

TEST(ModelConfigTest, ReadsSizesAndFillsInWhatFollows) {
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, ParseModelConfig(Sound().dump()));
  EXPECT_EQ(config.family, "llama");
  EXPECT_EQ(config.num_kv_heads, 2);
  EXPECT_EQ(config.head_dim, 16);
  EXPECT_EQ(config.rope_theta, 10000);
  EXPECT_EQ(config.rms_norm_eps, 1e-6);
  EXPECT_EQ(config.bos_token_id, -1);
  EXPECT_THAT(config.eos_token_ids, ElementsAre(2));
  EXPECT_FALSE(config.qkv_bias);
  EXPECT_FALSE(config.tied_embeddings);
}

TEST(ModelConfigTest, Qwen2HasBiasesAndEveryStopIdCounts) {
  Json json = Sound();
  json.update({{"model_type", "qwen2"}, {"eos_token_id", {7, 9}}, {"tie_word_embeddings", true}});
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, ParseModelConfig(json.dump()));
  EXPECT_TRUE(config.qkv_bias);
  EXPECT_TRUE(config.tied_embeddings);
  EXPECT_THAT(config.eos_token_ids, ElementsAre(7, 9));
}

TEST(ModelConfigTest, ReadsLlama3ScalingInBothSpellings) {
  const Json scaling = {{"rope_type", "llama3"},  {"factor", 8.0},
                        {"low_freq_factor", 1.0}, {"high_freq_factor", 4.0},
                        {"rope_theta", 500000.0}, {"original_max_position_embeddings", 8192}};
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    Json json = Sound();
    json[key] = scaling;
    ASSERT_OK_AND_ASSIGN(const ModelConfig config, ParseModelConfig(json.dump()));
    EXPECT_EQ(config.rope_scaling.type, "llama3");
    EXPECT_EQ(config.rope_scaling.factor, 8);
    EXPECT_EQ(config.rope_scaling.original_max_position, 8192);
    EXPECT_EQ(config.rope_theta, 500000);
  }
}

struct BadConfig {
  const char* name;
  const char* change;  // merged over the sound config
  std::vector<std::string> message;
};

class BadConfigTest : public ::testing::TestWithParam<BadConfig> {};

TEST_P(BadConfigTest, IsRefusedWithKeyAndValue) {
  Json json = Sound();
  json.merge_patch(Json::parse(GetParam().change));
  const absl::Status status = ParseModelConfig(json.dump()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  for (const std::string& part : GetParam().message) {
    EXPECT_THAT(std::string(status.message()), HasSubstr(part));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Configs, BadConfigTest,
    ::testing::Values(
        BadConfig{"UnknownFamily", R"({"model_type": "mamba"})", {"model_type", "mamba", "llama"}},
        BadConfig{"NoFamily", R"({"model_type": null})", {"model_type"}},
        BadConfig{"ZeroLayers", R"({"num_hidden_layers": 0})", {"num_hidden_layers", "0"}},
        BadConfig{"LayersAreText", R"({"num_hidden_layers": "2"})", {"num_hidden_layers", "\"2\""}},
        BadConfig{
            "HugeHidden", R"({"hidden_size": 1000000000000})", {"hidden_size", "1000000000000"}},
        BadConfig{"FractionalVocabulary", R"({"vocab_size": 300.5})", {"vocab_size", "300.5"}},
        BadConfig{
            "HeadsDoNotDivide", R"({"num_key_value_heads": 3})", {"num_key_value_heads", "3", "4"}},
        BadConfig{"HiddenNotDivisible", R"({"hidden_size": 66})", {"hidden_size", "66", "4"}},
        BadConfig{"OddHead", R"({"head_dim": 15})", {"head_dim", "15"}},
        BadConfig{"NegativeEps", R"({"rms_norm_eps": -1})", {"rms_norm_eps", "-1"}},
        BadConfig{"ZeroTheta", R"({"rope_theta": 0})", {"rope_theta", "0"}},
        BadConfig{"YarnScaling", R"({"rope_scaling": {"rope_type": "yarn"}})", {"yarn", "llama3"}},
        BadConfig{"ScalingIsText", R"({"rope_scaling": "llama3"})", {"rope_scaling"}},
        BadConfig{"ScalingWithoutFactor",
                  R"({"rope_scaling": {"rope_type": "llama3"}})",
                  {"rope_scaling.factor"}},
        BadConfig{"FrequenciesCrossed",
                  R"({"rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4,
                      "high_freq_factor": 1, "original_max_position_embeddings": 8192}})",
                  {"high_freq_factor", "1", "4"}},
        BadConfig{"NoStopId", R"({"eos_token_id": null})", {"eos_token_id"}},
        BadConfig{
            "StopIdOutOfRange", R"({"eos_token_id": [2, 300]})", {"eos_token_id", "300", "299"}},
        BadConfig{"EmptyStopIds", R"({"eos_token_id": []})", {"eos_token_id"}},
        BadConfig{"BosOutOfRange", R"({"bos_token_id": -5})", {"bos_token_id", "-5"}},
        BadConfig{"AttentionBias", R"({"attention_bias": true})", {"attention_bias", "true"}},
        BadConfig{"SlidingWindow", R"({"use_sliding_window": true})", {"use_sliding_window"}},
        BadConfig{"OtherActivation", R"({"hidden_act": "gelu"})", {"hidden_act", "gelu"}},
        BadConfig{
            "TyingIsText", R"({"tie_word_embeddings": "yes"})", {"tie_word_embeddings", "yes"}}),
    [](const auto& info) { return info.param.name; });

TEST(ModelConfigTest, NanAndBrokenJsonAreRefused) {
  EXPECT_THAT(ParseModelConfig(R"({"rms_norm_eps": NaN})"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("config.json"), HasSubstr("JSON"))));
  EXPECT_THAT(ParseModelConfig("{"), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(ParseModelConfig("[]"), StatusIs(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace plumbline
