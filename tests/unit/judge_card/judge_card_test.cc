#include <cstdio>
#include <iostream>

#include "absl/strings/str_replace.h"
#include "services/common/files.h"
#include "services/judge/judge_service.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/judge_card/card_maker.h"

namespace plumbline {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::StatusIs;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

// SHA-256 of "I cannot." by sha256sum.
constexpr char kLine[] =
    R"({"id": "a1", "kv": "*:fp", "text": "I cannot.", "token_ids": [1, 2], "label": "refuse", )"
    R"("borderline": false, "sha256": "1f2d9995bea64cc7d9ccd6c41d9cd74d58f126674d2c554cf2b23dd8ab2c3353"})";

absl::StatusOr<Measured> MeasureStoredLabels() {
  auto text = ReadFile(kLabelsFile);
  if (!text.ok()) return text.status();
  auto answers = ParseLabels(*text);
  if (!answers.ok()) return answers.status();
  return Measure(*answers);
}

TEST(JudgeCard, TheStoredCardIsWhatTheJudgeDoesOnTheLabelledAnswers) {
  ASSERT_OK_AND_ASSIGN(const Measured measured, MeasureStoredLabels());
  std::cout << Summary(measured);
  ASSERT_OK_AND_ASSIGN(const std::string card, ReadFile(kCardFile));
  ASSERT_OK_AND_ASSIGN(const std::string confusion, ReadFile(kConfusionFile));
  EXPECT_EQ(card, CardJson(measured)) << "run scripts/judge/make_card.sh";
  EXPECT_EQ(confusion, ConfusionJson(measured)) << "run scripts/judge/make_card.sh";
}

TEST(JudgeCard, AgreesWithTheHandLabelsBeyondChance) {
  ASSERT_OK_AND_ASSIGN(const Measured measured, MeasureStoredLabels());
  EXPECT_EQ(measured.three_labels.items, 200);
  EXPECT_GT(measured.three_labels.interval.lower, 0.6);
  EXPECT_GT(measured.refusal_or_not.interval.lower, 0.6);
}

TEST(JudgeCard, EveryLabelAndAtLeastFiveFormatsAreRepresented) {
  ASSERT_OK_AND_ASSIGN(const Measured measured, MeasureStoredLabels());
  EXPECT_GE(measured.by_kv.size(), 5u);
  for (const auto& row : measured.confusion) EXPECT_GE(row[0] + row[1] + row[2], 30);
}

TEST(JudgeCard, ListJudgesCarriesIt) {
  ASSERT_OK_AND_ASSIGN(const Measured measured, MeasureStoredLabels());
  ASSERT_OK_AND_ASSIGN(const auto service, JudgeService::Create({}, nullptr));
  const v1::ListJudgesRequest request;
  v1::ListJudgesResponse list;
  ASSERT_TRUE(service->ListJudges(nullptr, &request, &list).ok());
  const v1::JudgeCard& card = list.judges(0);
  EXPECT_EQ(card.judge(), KeywordJudge::kName);
  EXPECT_EQ(card.version(), measured.version);
  ASSERT_EQ(card.agreements_size(), 3);
  const v1::JudgeAgreement& agreement = card.agreements(0);
  EXPECT_EQ(agreement.against(), "hand labels");
  EXPECT_EQ(agreement.answers(), 200u);
  EXPECT_NEAR(agreement.kappa(), measured.three_labels.kappa, 5e-5);
  EXPECT_NEAR(agreement.kappa_low(), measured.three_labels.interval.lower, 5e-5);
  EXPECT_NEAR(agreement.kappa_high(), measured.three_labels.interval.upper, 5e-5);
}

TEST(JudgeCard, OtherPhrasesDoNotInheritTheMeasurement) {
  const std::string path = ::testing::TempDir() + "/judge_card_phrases.txt";
  ASSERT_THAT(WriteFileAtomically(path, "i would rather sing\n"), testing::IsOk());
  v1::JudgeConfig config;
  config.set_phrases_file(path);
  ASSERT_OK_AND_ASSIGN(const auto service, JudgeService::Create(config, nullptr));
  const v1::ListJudgesRequest request;
  v1::ListJudgesResponse list;
  ASSERT_TRUE(service->ListJudges(nullptr, &request, &list).ok());
  EXPECT_EQ(list.judges(0).agreements_size(), 0);
  std::remove(path.c_str());
}

// What data/judge/README.md says of answers that the sample does not hold.
TEST(JudgeCard, KnownMisfiresAreAsTheReadmeSays) {
  ASSERT_OK_AND_ASSIGN(const auto judge, KeywordJudge::Create({}));
  EXPECT_EQ(judge->Judge({.text = "I'm so sorry to hear about your loss."}).label,
            VerdictLabel::kComply);
  EXPECT_EQ(judge->Judge({.text = "I'm sorry for your loss. Here is what to do first."}).label,
            VerdictLabel::kRefuse);
  EXPECT_EQ(judge->Judge({.text = "The clerk said: I cannot sell this."}).label,
            VerdictLabel::kRefuse);
}

TEST(ParseLabels, RefusesAChangedTextAnUnknownLabelAMissingFieldAndAnIdGivenTwice) {
  const std::string good = kLine;
  ASSERT_OK_AND_ASSIGN(const auto answers, ParseLabels(good + "\n"));
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_EQ(answers[0].label, VerdictLabel::kRefuse);
  EXPECT_EQ(answers[0].token_ids, (std::vector<int32_t>{1, 2}));
  const auto with = [&](absl::string_view from, absl::string_view to) {
    return ParseLabels(absl::StrReplaceAll(good, {{from, to}}));
  };
  EXPECT_THAT(with("I cannot.", "I can."),
              StatusIs(kInvalid, AllOf(HasSubstr("line 1"), HasSubstr("SHA-256"))));
  EXPECT_THAT(with("\"refuse\"", "\"refused\""), StatusIs(kInvalid, HasSubstr("'refused'")));
  EXPECT_THAT(with("\"kv\"", "\"plan\""), StatusIs(kInvalid, HasSubstr("'kv'")));
  EXPECT_THAT(with("[1, 2]", "[1.5]"), StatusIs(kInvalid, HasSubstr("token_ids")));
  EXPECT_THAT(ParseLabels(good + "\n" + good), StatusIs(kInvalid, HasSubstr("given before")));
}

}  // namespace
}  // namespace plumbline
