#include "services/pcr/pcr_service.h"

#include <numeric>

#include "services/rpc/client.h"
#include "services/rpc/server.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

using ::testing::HasSubstr;
using testing::StatusIs;
using Client = RpcClient<v1::PcrClassifier>;
using Stub = v1::PcrClassifier::Stub;

void SetPairs(v1::PairedFlips* pairs, uint32_t both, uint32_t only_a, uint32_t only_b,
              uint32_t neither) {
  pairs->set_both(both);
  pairs->set_only_a(only_a);
  pairs->set_only_b(only_b);
  pairs->set_neither(neither);
}

void SetFlips(v1::LayerEvidence* evidence, uint32_t flips, uint32_t trials) {
  evidence->set_flips(flips);
  evidence->set_trials(trials);
}

// One critical layer (5), whose full precision repairs nearly everything.
v1::ClassifyRequest OneCriticalLayer() {
  v1::ClassifyRequest request;
  request.set_policy(v1::POLICY_PLUMBLINE);
  request.set_num_layers(8);
  request.set_target("int4.asym.token");
  request.set_baseline_refusals(200);
  for (uint32_t layer = 0; layer < 8; ++layer) {
    v1::LayerEvidence* evidence = request.add_layers();
    evidence->set_layer(layer);
    SetFlips(evidence, layer == 5 ? 60 : 1, 96);
  }
  SetFlips(request.mutable_all_layers(), 90, 96);
  SetFlips(request.mutable_all_but_critical(), 10, 96);
  SetPairs(request.mutable_critical_fp_pairs(), 9, 1, 81, 5);
  request.set_has_critical_layer(true);
  request.set_critical_layer(5);
  SetPairs(request.mutable_per_channel_step(), 2, 0, 50, 28);
  SetPairs(request.mutable_per_channel_deployable(), 3, 0, 49, 28);
  request.set_seed(3);
  return request;
}

class PcrServiceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    metrics_ = Metrics::Create("pcr");
    service_ = std::make_unique<PcrService>(metrics_.get());
    ASSERT_OK_AND_ASSIGN(server_,
                         RpcServer::Start({.default_listen = "127.0.0.1:0",
                                           .services = {Hosted<v1::PcrClassifier>(service_.get())},
                                           .metrics = metrics_.get()}));
    v1::Endpoint endpoint;
    endpoint.set_address(server_->address());
    ASSERT_OK_AND_ASSIGN(client_, Client::Create(endpoint));
  }
  absl::StatusOr<v1::ClassifyResponse> Classify(const v1::ClassifyRequest& request) {
    return client_->Call(&Stub::Classify, request);
  }
  std::unique_ptr<Metrics> metrics_;
  std::unique_ptr<PcrService> service_;
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<Client> client_;
};

TEST_F(PcrServiceTest, NamesTheModeAndThePlansThatCompete) {
  ASSERT_OK_AND_ASSIGN(auto response, Classify(OneCriticalLayer()));
  EXPECT_EQ(response.mode(), v1::FAILURE_MODE_OUTLIER_CRUSHES) << response.explanation();
  EXPECT_EQ(response.pattern(), v1::ATTENTION_PATTERN_CONCENTRATED);
  EXPECT_THAT(response.critical_layers(), ::testing::ElementsAre(5));
  EXPECT_EQ(response.policy_version(), "plumbline/3");
  const v1::PcrEstimate& pcr = response.pcr_deployable();
  ASSERT_TRUE(pcr.defined());
  EXPECT_NEAR(pcr.pcr().estimate(), 1 - 3.0 / 52, 1e-12);
  EXPECT_LT(pcr.pcr().low(), pcr.pcr().estimate());
  EXPECT_GT(pcr.pcr().high(), pcr.pcr().estimate());
  EXPECT_EQ(pcr.pcr().trials(), 80u);
  EXPECT_NEAR(pcr.mass_below_30() + pcr.mass_30_to_70() + pcr.mass_above_70(), 1, 1e-9);
  EXPECT_EQ(pcr.histogram_size(), 50);
  EXPECT_NEAR(std::accumulate(pcr.histogram().begin(), pcr.histogram().end(), 0.0), 1, 1e-9);
  ASSERT_GT(response.candidates_size(), 3);
  EXPECT_TRUE(response.candidates(0).from_mode());
  EXPECT_THAT(response.candidates(0).plan(), HasSubstr("group64"));
  EXPECT_FALSE(response.candidates(1).from_mode());
  EXPECT_THAT(metrics_->Page(), HasSubstr("plumb_classifications_total{policy=\"plumbline\"} 1"));
}

TEST_F(PcrServiceTest, EqualEvidenceGivesEqualBytes) {
  ASSERT_OK_AND_ASSIGN(auto first, Classify(OneCriticalLayer()));
  ASSERT_OK_AND_ASSIGN(auto second, Classify(OneCriticalLayer()));
  EXPECT_EQ(first.SerializeAsString(), second.SerializeAsString());
}

TEST_F(PcrServiceTest, AnswersWhatTheCoreAnswers) {
  const auto request = OneCriticalLayer();
  ASSERT_OK_AND_ASSIGN(Evidence evidence, EvidenceFromProto(request));
  EXPECT_EQ(evidence.all_but_critical, (PairedOutcomes{9, 1, 81, 5}));
  EXPECT_EQ(evidence.pcr_step, (PairedOutcomes{2, 0, 50, 28}));
  EXPECT_EQ(evidence.layers[5].count, (FlipCount{60, 96}));
  ASSERT_OK_AND_ASSIGN(Classification classification, ClassifyFailureMode(evidence));
  ASSERT_OK_AND_ASSIGN(auto response, Classify(request));
  EXPECT_EQ(response.explanation(), classification.explanation);
  EXPECT_EQ(static_cast<size_t>(response.candidates_size()), classification.candidates.size());
}

TEST_F(PcrServiceTest, BrokenAnswersAndUnclearLayersAreWeighedByTheRpcAlone) {
  auto request = OneCriticalLayer();
  request.mutable_layers(5)->set_degenerate(30);
  ASSERT_OK_AND_ASSIGN(auto response, Classify(request));
  EXPECT_EQ(response.mode(), v1::FAILURE_MODE_OUTLIER_CRUSHES);
  SetFlips(request.mutable_layers(5), 40, 96);
  request.mutable_layers(5)->set_nonfinite(18);
  ASSERT_OK_AND_ASSIGN(response, Classify(request));
  EXPECT_EQ(response.mode(), v1::FAILURE_MODE_UNDETERMINED);
  EXPECT_THAT(response.explanation(), HasSubstr("48 of 96 answers break down"));
  SetFlips(request.mutable_layers(2), 11, 96);  // p .011 alone, .077 over the other seven layers
  ASSERT_OK_AND_ASSIGN(response, Classify(request));
  EXPECT_THAT(response.unclear_layers(), ::testing::ElementsAre(2));
}

TEST_F(PcrServiceTest, BrokenAnswersOfPairsReachTheCore) {
  auto request = OneCriticalLayer();
  request.mutable_per_channel_deployable()->set_broken_a(40);
  request.mutable_critical_fp_pairs()->set_broken_b(5);
  ASSERT_OK_AND_ASSIGN(Evidence evidence, EvidenceFromProto(request));
  EXPECT_EQ(evidence.pcr_deployable->broken_a, 40);
  EXPECT_EQ(evidence.all_but_critical->broken_b, 5);
  ASSERT_OK_AND_ASSIGN(auto response, Classify(request));
  EXPECT_EQ(response.mode(), v1::FAILURE_MODE_UNDETERMINED);
  EXPECT_THAT(response.explanation(), HasSubstr("per channel 40 of 80 answers break down"));
  request.mutable_per_channel_deployable()->set_broken_b(29);  // of 80, and 52 flip
  EXPECT_THAT(Classify(request), StatusIs(absl::StatusCode::kInvalidArgument,
                                          HasSubstr("per_channel_deployable: 52 flips and 29")));
}

TEST_F(PcrServiceTest, WithoutPairsTheMarginsAreTakenAsIndependent) {
  auto request = OneCriticalLayer();
  request.clear_critical_fp_pairs();
  ASSERT_OK_AND_ASSIGN(Evidence evidence, EvidenceFromProto(request));
  // 10 of 96 and 90 of 96: 9.375 expected in common.
  EXPECT_EQ(evidence.all_but_critical, (PairedOutcomes{9, 1, 81, 5}));
  SetFlips(request.mutable_all_but_critical(), 95, 96);
  SetFlips(request.mutable_all_layers(), 95, 96);
  ASSERT_OK_AND_ASSIGN(evidence, EvidenceFromProto(request));
  EXPECT_EQ(evidence.all_but_critical->prompts(), 96);
  EXPECT_GE(evidence.all_but_critical->neither, 0);
}

TEST_F(PcrServiceTest, WhatWasNotMeasuredOrHasTooFewFlipsIsUndefinedWithItsReason) {
  auto request = OneCriticalLayer();
  request.clear_per_channel_step();
  SetPairs(request.mutable_per_channel_deployable(), 1, 0, 3, 76);
  ASSERT_OK_AND_ASSIGN(auto response, Classify(request));
  EXPECT_FALSE(response.pcr_paper().defined());
  EXPECT_EQ(response.pcr_paper().undefined_reason(), "not measured");
  EXPECT_FALSE(response.pcr_deployable().defined());
  EXPECT_THAT(response.pcr_deployable().undefined_reason(), HasSubstr("flips 4 of "));
  EXPECT_EQ(response.mode(), v1::FAILURE_MODE_UNDETERMINED);
}

TEST_F(PcrServiceTest, BadEvidenceIsNamed) {
  const auto refused = [&](auto change, const char* names) {
    v1::ClassifyRequest request = OneCriticalLayer();
    change(&request);
    EXPECT_THAT(Classify(request), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(names)))
        << names;
  };
  using Request = v1::ClassifyRequest;
  refused([](Request* r) { r->set_policy(static_cast<v1::Policy>(7)); }, "got 7");
  refused([](Request* r) { r->set_num_layers(0); }, "num_layers");
  refused([](Request* r) { r->mutable_layers(3)->set_flips(97); }, "layers[3]: 97 flips of 96");
  refused([](Request* r) { r->mutable_layers(3)->set_degenerate(96); },
          "layers[3]: 1 flips and 96");
  refused([](Request* r) { r->mutable_all_layers()->set_nonfinite(7); }, "all_layers");
  refused([](Request* r) { r->mutable_layers(3)->set_layer(8); }, "layers[3].layer");
  refused([](Request* r) { r->mutable_layers(3)->set_layer(2); }, "2");
  refused([](Request* r) { r->mutable_all_layers()->set_flips(99); }, "all_layers");
  refused([](Request* r) { r->set_critical_layer(8); }, "critical_layer");
  refused([](Request* r) { r->set_critical_layer(4); }, "4");
  refused([](Request* r) { r->set_target("nonsense"); }, "nonsense");
  refused(
      [](Request* r) {
        r->clear_critical_fp_pairs();
        r->clear_all_layers();
      },
      "all_layers is not");
  refused(
      [](Request* r) {
        r->clear_critical_fp_pairs();
        r->mutable_all_but_critical()->set_trials(50);
      },
      "50 and 96");
}

}  // namespace
}  // namespace plumbline
