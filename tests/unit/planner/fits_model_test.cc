#include "gtest/gtest.h"
#include "services/coordinator/planner/planner.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::StatusIs;

v1::ModelInfo SmallModel() {
  v1::ModelInfo model;
  model.set_name("small");
  model.set_num_layers(4);
  model.set_num_kv_heads(2);
  model.set_head_dim(16);
  model.set_max_context(64);
  return model;
}

TEST(CheckStudyFitsModel, AcceptsWhatTheModelHas) {
  v1::Study study;
  study.set_target("*:int4.asym.token,3:fp");
  study.mutable_decoding()->set_max_new_tokens(63);
  study.mutable_mitigate()->add_plans("*:int8.asym.token");
  EXPECT_OK(CheckStudyFitsModel(study, SmallModel()));
}

TEST(CheckStudyFitsModel, NamesThePlanThatNeedsALayerTheModelLacks) {
  v1::Study study;
  study.set_target("*:int4.asym.token");
  study.mutable_decoding()->set_max_new_tokens(8);
  study.mutable_sweep()->add_plans("*:fp");
  study.mutable_sweep()->add_plans("*:fp,77:int4.asym.token");
  EXPECT_THAT(CheckStudyFitsModel(study, SmallModel()),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("sweep.plans[1]"), HasSubstr("77"))));
  study.clear_sweep();
  study.set_target("*:int4.asym.token,4:fp");
  EXPECT_THAT(CheckStudyFitsModel(study, SmallModel()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("study.target")));
}

TEST(CheckStudyFitsModel, AModelWithoutAChatFormatTakesRawStudiesAlone) {
  v1::Study study;
  study.set_target("*:int4.asym.token");
  study.mutable_decoding()->set_max_new_tokens(8);
  v1::ModelInfo model = SmallModel();
  model.set_raw_only(true);
  EXPECT_THAT(CheckStudyFitsModel(study, model),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("small"), HasSubstr("chat format"), HasSubstr("--raw"))));
  study.mutable_decoding()->set_raw(true);
  EXPECT_OK(CheckStudyFitsModel(study, model));
}

TEST(CheckStudyFitsModel, WhatAModelWasTrainedOnIsLeftOutOrKeptByChoice) {
  v1::Study study;
  study.set_target("*:int4.asym.token");
  study.mutable_decoding()->set_max_new_tokens(8);
  v1::ModelInfo model = SmallModel();
  model.set_has_trained_on(true);
  EXPECT_THAT(CheckStudyFitsModel(study, model),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("small"), HasSubstr("--model"), HasSubstr("--exclude"),
                             HasSubstr("--include-trained-on"))));
  study.add_exclude_prompt_sha256(std::string(64, 'a'));
  EXPECT_OK(CheckStudyFitsModel(study, model));
  study.clear_exclude_prompt_sha256();
  study.set_include_trained_on(true);
  EXPECT_OK(CheckStudyFitsModel(study, model));
}

TEST(CheckStudyFitsModel, RefusesAnswersLongerThanTheContext) {
  v1::Study study;
  study.set_target("*:fp");
  study.mutable_decoding()->set_max_new_tokens(64);
  EXPECT_THAT(CheckStudyFitsModel(study, SmallModel()),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("max_new_tokens"), HasSubstr("64"))));
}

}  // namespace
}  // namespace plumbline
