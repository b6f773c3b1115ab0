#include "services/pcr/policy.h"

#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

using ::plumbline::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct PublishedRow {
  std::string model;
  double pcr = 0;
  FailureMode published = FailureMode::kUndetermined;
  bool dilution_reported = false;
  FailureMode by_pcr_alone = FailureMode::kUndetermined;
};

std::vector<PublishedRow> ReadPublished() {
  std::vector<PublishedRow> rows;
  std::ifstream file("tests/unit/pcr/published_figures.csv");
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line[0] == '#' || line.rfind("model,", 0) == 0) continue;
    const std::vector<std::string> cells = absl::StrSplit(line, ',');
    PublishedRow row{.model = cells.at(0)};
    EXPECT_TRUE(absl::SimpleAtod(cells.at(1), &row.pcr));
    row.pcr /= 100;
    row.published = ParseFailureMode(cells.at(3)).value();
    row.dilution_reported = cells.at(4) == "yes";
    row.by_pcr_alone = ParseFailureMode(cells.at(5)).value();
    rows.push_back(row);
  }
  return rows;
}

TEST(PaperPolicyTest, ReproducesThePublishedRuleAndDisagreesOnlyAboutMistral7B) {
  const std::vector<PublishedRow> rows = ReadPublished();
  ASSERT_EQ(rows.size(), 8u);
  std::vector<std::string> disagreements;
  for (const PublishedRow& row : rows) {
    const FailureMode mode =
        ModeByRates({.dilution = row.dilution_reported, .pcr = row.pcr}, RulesOf(Policy::kPaper));
    if (mode != row.published) {
      disagreements.push_back(std::string(row.model) + ": rule " +
                              std::string(FailureModeName(mode)) + ", published " +
                              std::string(FailureModeName(row.published)));
    }
  }
  for (const std::string& line : disagreements) std::printf("disagrees: %s\n", line.c_str());
  EXPECT_THAT(disagreements,
              ElementsAre("Mistral-7B-v0.2: rule mixed, published outlier-as-safety"));
}

TEST(PaperPolicyTest, PcrAloneCannotTellDilution) {
  for (const PublishedRow& row : ReadPublished()) {
    EXPECT_EQ(ModeByRates({.pcr = row.pcr}, RulesOf(Policy::kPaper)), row.by_pcr_alone)
        << row.model;
  }
}

TEST(PolicyTest, TheFirstFindingOfTheTableWins) {
  const PolicyRules& rules = RulesOf(Policy::kPlumbline);
  EXPECT_EQ(ModeByRates({.every_layer_critical = true, .dilution = true, .pcr = 0}, rules),
            FailureMode::kHyperVulnerable);
  EXPECT_EQ(ModeByRates({.pcr = 0.2999}, rules), FailureMode::kOutlierAsSafety);
  EXPECT_EQ(ModeByRates({.pcr = 0.30}, rules), FailureMode::kMixed);
  EXPECT_EQ(ModeByRates({.pcr = 0.70}, rules), FailureMode::kMixed);
  EXPECT_EQ(ModeByRates({.pcr = 0.7001}, rules), FailureMode::kOutlierCrushesSafety);
  EXPECT_EQ(ModeByRates({.pcr = -2}, rules), FailureMode::kOutlierAsSafety);
}

TEST(PolicyTest, PatternsFollowTheNumberOfCriticalLayers) {
  EXPECT_EQ(PatternOf(0), AttentionPattern::kNone);
  EXPECT_EQ(PatternOf(1), AttentionPattern::kConcentrated);
  EXPECT_EQ(PatternOf(2), AttentionPattern::kDistributedEarly);
  EXPECT_EQ(PatternOf(4), AttentionPattern::kDistributedEarly);
  EXPECT_EQ(PatternOf(5), AttentionPattern::kUltraDistributed);
}

TEST(PolicyTest, NamesRoundTripAndUnknownOnesListTheKnown) {
  for (const Policy policy : {Policy::kPlumbline, Policy::kPaper}) {
    EXPECT_EQ(*ParsePolicy(PolicyName(policy)), policy);
  }
  EXPECT_EQ(*ParseFailureMode(FailureModeName(FailureMode::kMixed)), FailureMode::kMixed);
  EXPECT_THAT(ParsePolicy("strict"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("got \"strict\"")));
  EXPECT_THAT(ParseFailureMode("odd"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("hyper-vulnerable")));
}

}  // namespace
}  // namespace plumbline
