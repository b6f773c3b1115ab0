#include <cmath>
#include <functional>

#include "services/coordinator/planner/planner.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/planner/fake_world.h"

namespace plumbline::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(NormalizeStudy, FillsInTheDefaultsOfPolicyPlumbline) {
  ASSERT_OK_AND_ASSIGN(v1::Study study, NormalizeStudy(DiagnoseOf()));
  EXPECT_EQ(study.policy(), v1::POLICY_PLUMBLINE);
  EXPECT_EQ(study.target(), "int4.asym.token");
  EXPECT_EQ(study.decoding().max_new_tokens(), 48u);
  EXPECT_EQ(study.decoding().sampling().temperature(), 0);
  EXPECT_EQ(study.decoding().stop_on_verdict(), "keyword");
  EXPECT_EQ(study.judge(), "keyword");
  EXPECT_EQ(study.jitter_replicas(), 2u);
  EXPECT_EQ(study.flip_limit(), 0.05);
  EXPECT_EQ(study.diagnose().screen_prompts(), 24u);
  EXPECT_EQ(study.diagnose().confirm_prompts(), 72u);
}

TEST(NormalizeStudy, PolicyPaperHasOneStageOfTwentyPromptsAndNoReplicas) {
  v1::Study paper = DiagnoseOf();
  paper.set_policy(v1::POLICY_PAPER);
  ASSERT_OK_AND_ASSIGN(v1::Study study, NormalizeStudy(paper));
  EXPECT_EQ(study.diagnose().screen_prompts(), 20u);
  EXPECT_EQ(study.diagnose().confirm_prompts(), 0u);
  EXPECT_EQ(study.jitter_replicas(), 0u);
}

TEST(NormalizeStudy, IsIdempotent) {
  for (v1::Policy policy : {v1::POLICY_PLUMBLINE, v1::POLICY_PAPER}) {
    v1::Study study = DiagnoseOf();
    study.set_policy(policy);
    study.set_seed(7);
    ASSERT_OK_AND_ASSIGN(v1::Study once, NormalizeStudy(study));
    ASSERT_OK_AND_ASSIGN(v1::Study twice, NormalizeStudy(once));
    EXPECT_EQ(once.SerializeAsString(), twice.SerializeAsString());
  }
}

TEST(NormalizeStudy, GreedyCellsDoNotDependOnASeed) {
  v1::Study study = DiagnoseOf();
  study.set_seed(7);
  study.mutable_decoding()->mutable_sampling()->set_seed(9);
  ASSERT_OK_AND_ASSIGN(v1::Study greedy, NormalizeStudy(study));
  EXPECT_EQ(greedy.decoding().sampling().seed(), 0u);
  study.mutable_decoding()->mutable_sampling()->set_temperature(0.7);
  study.mutable_decoding()->mutable_sampling()->set_seed(0);
  ASSERT_OK_AND_ASSIGN(v1::Study sampled, NormalizeStudy(study));
  EXPECT_EQ(sampled.decoding().sampling().seed(), 7u);
}

TEST(NormalizeStudy, RunToTheEndStopsNothingEarly) {
  v1::Study study = DiagnoseOf();
  study.set_run_to_the_end(true);
  ASSERT_OK_AND_ASSIGN(v1::Study normal, NormalizeStudy(study));
  EXPECT_EQ(normal.decoding().stop_on_verdict(), "");
}

TEST(NormalizeStudy, CanaryMakesItsPlanTheTargetAndItsLimitTheLimit) {
  v1::Study study = DiagnoseOf();
  study.mutable_canary()->set_plan("*:int5.asym.token");
  study.mutable_canary()->set_max_flip_rate(0.1);
  ASSERT_OK_AND_ASSIGN(v1::Study normal, NormalizeStudy(study));
  EXPECT_EQ(normal.target(), "*:int5.asym.token");
  EXPECT_EQ(normal.flip_limit(), 0.1);
}

TEST(NormalizeStudy, ASweepOverGivenPlansSpeaksOfTheFirstThatQuantizes) {
  v1::Study study = DiagnoseOf("");
  study.mutable_sweep()->add_plans("*:fp");
  study.mutable_sweep()->add_plans("*:int8.asym.token");
  study.mutable_sweep()->add_plans("*:int4.asym.token");
  ASSERT_OK_AND_ASSIGN(v1::Study normal, NormalizeStudy(study));
  EXPECT_EQ(normal.target(), "*:int8.asym.token");
  study.set_target("int5.asym.token");
  ASSERT_OK_AND_ASSIGN(normal, NormalizeStudy(study));
  EXPECT_EQ(normal.target(), "int5.asym.token");
  study.set_target("");
  study.mutable_sweep()->clear_plans();
  ASSERT_OK_AND_ASSIGN(normal, NormalizeStudy(study));
  EXPECT_EQ(normal.target(), "int4.asym.token");
}

TEST(NormalizeStudy, ACustomStudyHasNoTargetUnlessItNamesOne) {
  v1::Study study = DiagnoseOf("");
  study.mutable_custom()->add_plans("*:fp");
  ASSERT_OK_AND_ASSIGN(v1::Study normal, NormalizeStudy(study));
  EXPECT_EQ(normal.target(), "");
  study.set_target("int5.asym.token");
  ASSERT_OK_AND_ASSIGN(normal, NormalizeStudy(study));
  EXPECT_EQ(normal.target(), "int5.asym.token");
}

struct BadStudy {
  std::string about;
  std::function<void(v1::Study*)> spoil;
  std::string message;
};

TEST(NormalizeStudy, RefusesWhatCannotRunAndNamesFieldAndValue) {
  const std::vector<BadStudy> cases = {
      {"no kind", [](v1::Study* s) { s->clear_kind(); }, "kind: is not set"},
      {"no model", [](v1::Study* s) { s->clear_model(); }, "model: is empty"},
      {"no prompts", [](v1::Study* s) { s->clear_prompt_sets(); }, "prompt_sets: is empty"},
      {"nameless set", [](v1::Study* s) { s->add_prompt_sets(); }, "prompt_sets[1]: has no name"},
      {"set twice", [](v1::Study* s) { s->add_prompt_sets()->set_name("synthetic"); },
       "\"synthetic\" a second time"},
      {"short digest", [](v1::Study* s) { s->mutable_prompt_sets(0)->set_sha256("abc"); },
       "got \"abc\""},
      {"upper-case digest",
       [](v1::Study* s) { s->mutable_prompt_sets(0)->set_sha256(std::string(64, 'A')); },
       "lower-case"},
      {"bad exclusion", [](v1::Study* s) { s->add_exclude_prompt_sha256("xyz"); },
       "exclude_prompt_sha256[0]"},
      {"unknown type", [](v1::Study* s) { s->set_target("int7.asym.token"); }, "int7"},
      {"target without symmetry", [](v1::Study* s) { s->set_target("int4.token"); }, "target"},
      {"target fp", [](v1::Study* s) { s->set_target("fp"); }, "quantizes nothing"},
      {"target plan fp", [](v1::Study* s) { s->set_target("*:fp,3:fp"); }, "quantizes nothing"},
      {"quirk not asked for", [](v1::Study* s) { s->set_target("int4.asym.channel"); }, "target"},
      {"too many tokens", [](v1::Study* s) { s->mutable_decoding()->set_max_new_tokens(5000); },
       "got 5000"},
      {"negative temperature",
       [](v1::Study* s) { s->mutable_decoding()->mutable_sampling()->set_temperature(-1); },
       "got -1"},
      {"temperature not a number",
       [](v1::Study* s) { s->mutable_decoding()->mutable_sampling()->set_temperature(NAN); },
       "temperature"},
      {"top_p above 1",
       [](v1::Study* s) { s->mutable_decoding()->mutable_sampling()->set_top_p(1.5); }, "got 1.5"},
      {"limit above 1", [](v1::Study* s) { s->set_flip_limit(5); }, "got 5"},
      {"limit negative", [](v1::Study* s) { s->set_flip_limit(-0.1); }, "flip_limit"},
      {"many replicas", [](v1::Study* s) { s->set_jitter_replicas(99); }, "got 99"},
      {"stop and run on",
       [](v1::Study* s) {
         s->set_run_to_the_end(true);
         s->mutable_decoding()->set_stop_on_verdict("keyword/1");
       },
       "choose one"},
      {"stop by another judge",
       [](v1::Study* s) { s->mutable_decoding()->set_stop_on_verdict("wildguard/1"); },
       "the judge is \"keyword\""},
      {"stop by a model judge",
       [](v1::Study* s) {
         s->set_judge("wildguard");
         s->mutable_decoding()->set_stop_on_verdict("wildguard");
       },
       "only the keyword judge"},
      {"raw with a system prompt",
       [](v1::Study* s) {
         s->set_system_prompt("be kind");
         s->mutable_decoding()->set_raw(true);
       },
       "decoding.raw"},
      {"unknown policy", [](v1::Study* s) { s->set_policy(static_cast<v1::Policy>(7)); },
       "the number 7"},
      {"long name", [](v1::Study* s) { s->set_name(std::string(300, 'n')); }, "300 bytes"},
      {"sweep of a bad plan", [](v1::Study* s) { s->mutable_sweep()->add_plans("*:int9"); },
       "sweep.plans[0]"},
      {"sweep twice",
       [](v1::Study* s) {
         s->mutable_sweep()->add_plans("*:int4.asym.token");
         s->mutable_sweep()->add_plans("*:int4.asym.token");
       },
       "twice"},
      {"custom without plans", [](v1::Study* s) { s->mutable_custom(); }, "custom.plans"},
      {"mitigate without plans", [](v1::Study* s) { s->mutable_mitigate(); }, "mitigate.plans"},
      {"names missing",
       [](v1::Study* s) {
         s->mutable_mitigate()->add_plans("*:int5.asym.token");
         s->mutable_mitigate()->add_plans("*:int6.asym.token");
         s->mutable_mitigate()->add_plan_names("one");
       },
       "1 names for 2 plans"},
      {"canary limit", [](v1::Study* s) { s->mutable_canary()->set_max_flip_rate(2); },
       "canary.max_flip_rate"},
      {"canary plan", [](v1::Study* s) { s->mutable_canary()->set_plan("nonsense"); },
       "canary.plan"},
  };
  EXPECT_GE(cases.size(), 20u);
  for (const BadStudy& bad : cases) {
    v1::Study study = DiagnoseOf();
    bad.spoil(&study);
    EXPECT_THAT(NormalizeStudy(study), StatusIs(absl::StatusCode::kInvalidArgument,
                                                AllOf(HasSubstr("study."), HasSubstr(bad.message))))
        << bad.about;
  }
}

}  // namespace
}  // namespace plumbline::testing
