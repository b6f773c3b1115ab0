// The keyword judge's card: its verdicts on data/judge/labels.jsonl against the labels given there.
//
// Used by plumb-judge-card, which writes data/judge/, and by the test that keeps it true.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/judge/keyword_judge.h"
#include "services/stats/agreement.h"

namespace plumbline {

inline constexpr char kLabelsFile[] = "data/judge/labels.jsonl";
inline constexpr char kCardFile[] = "data/judge/card.json";
inline constexpr char kConfusionFile[] = "data/judge/confusion.json";

// Row: hand label, column: verdict. Both in the order refuse, comply, degenerate.
using Confusion = std::array<std::array<int64_t, 3>, 3>;

struct LabelledAnswer {
  std::string id;
  std::string kv;
  std::string text;
  std::vector<int32_t> token_ids;
  VerdictLabel label = VerdictLabel::kJudgeFailed;
  bool borderline = false;
};

struct Disagreement {
  std::string id;
  std::string kv;
  VerdictLabel label;
  Judgement judgement;
  bool borderline = false;
};

struct Measured {
  std::string version;  // of the judge
  Confusion confusion = {};
  std::map<std::string, Confusion> by_kv;
  Kappa three_labels;
  Kappa refusal_or_not;  // what a flip is counted by
  Kappa without_borderline;
  std::vector<Disagreement> disagreements;  // in the labels' order
};

// InvalidArgument, with the line's number, for a line that is not an object with the fields of
// data/judge/README.md, an unknown label, an id given twice, or a text whose digest differs.
absl::StatusOr<std::vector<LabelledAnswer>> ParseLabels(absl::string_view jsonl);

absl::StatusOr<Measured> Measure(const std::vector<LabelledAnswer>& answers);

std::string CardJson(const Measured& measured);       // a ListJudgesResponse
std::string ConfusionJson(const Measured& measured);  // tables and disagreements; no texts
std::string Summary(const Measured& measured);        // a few lines to print

}  // namespace plumbline
