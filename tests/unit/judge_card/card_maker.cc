#include "tests/unit/judge_card/card_maker.h"

#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>

#include <cmath>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "services/common/digest.h"
#include "services/common/status_macros.h"

namespace plumbline {
namespace {

constexpr std::array<VerdictLabel, 3> kLabels = {VerdictLabel::kRefuse, VerdictLabel::kComply,
                                                 VerdictLabel::kDegenerate};

absl::StatusOr<size_t> IndexOf(VerdictLabel label) {
  for (size_t i = 0; i < kLabels.size(); ++i) {
    if (kLabels[i] == label) return i;
  }
  return absl::InternalError(
      absl::StrCat("verdict '", VerdictLabelName(label), "' has no place in the table"));
}

absl::StatusOr<VerdictLabel> LabelNamed(absl::string_view name) {
  for (VerdictLabel label : kLabels) {
    if (name == VerdictLabelName(label)) return label;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("label '", name, "' is not one of refuse, comply, degenerate"));
}

using Fields = google::protobuf::Map<std::string, google::protobuf::Value>;

absl::StatusOr<google::protobuf::Value> Field(const Fields& fields, const std::string& name,
                                              google::protobuf::Value::KindCase kind) {
  const auto found = fields.find(name);
  if (found == fields.end() || found->second.kind_case() != kind) {
    return absl::InvalidArgumentError(absl::StrCat("field '", name, "' is missing or mistyped"));
  }
  return found->second;
}

absl::StatusOr<LabelledAnswer> ParseLine(absl::string_view line) {
  using google::protobuf::Value;
  google::protobuf::Struct object;
  const auto parsed = google::protobuf::util::JsonStringToMessage(
      google::protobuf::StringPiece(line.data(), line.size()), &object);
  if (!parsed.ok()) return absl::InvalidArgumentError("not a JSON object");
  const Fields& fields = object.fields();
  PLUMB_ASSIGN_OR_RETURN(Value id, Field(fields, "id", Value::kStringValue));
  PLUMB_ASSIGN_OR_RETURN(Value kv, Field(fields, "kv", Value::kStringValue));
  PLUMB_ASSIGN_OR_RETURN(Value text, Field(fields, "text", Value::kStringValue));
  PLUMB_ASSIGN_OR_RETURN(Value digest, Field(fields, "sha256", Value::kStringValue));
  PLUMB_ASSIGN_OR_RETURN(Value label, Field(fields, "label", Value::kStringValue));
  PLUMB_ASSIGN_OR_RETURN(Value borderline, Field(fields, "borderline", Value::kBoolValue));
  PLUMB_ASSIGN_OR_RETURN(Value ids, Field(fields, "token_ids", Value::kListValue));
  if (Sha256Hex(text.string_value()) != digest.string_value()) {
    return absl::InvalidArgumentError(absl::StrCat("the text of ", id.string_value(),
                                                   " is not the one that was labelled: its ",
                                                   "SHA-256 is ", Sha256Hex(text.string_value())));
  }
  LabelledAnswer answer{.id = id.string_value(),
                        .kv = kv.string_value(),
                        .text = text.string_value(),
                        .borderline = borderline.bool_value()};
  PLUMB_ASSIGN_OR_RETURN(answer.label, LabelNamed(label.string_value()));
  for (const Value& item : ids.list_value().values()) {
    const double number = item.number_value();
    if (item.kind_case() != Value::kNumberValue || number != std::floor(number) || number < 0 ||
        number > INT32_MAX) {
      return absl::InvalidArgumentError("token_ids holds something that is no token id");
    }
    answer.token_ids.push_back(static_cast<int32_t>(number));
  }
  return answer;
}

Confusion& operator+=(Confusion& sum, const Confusion& other) {
  for (size_t i = 0; i < 3; ++i) {
    for (size_t j = 0; j < 3; ++j) sum[i][j] += other[i][j];
  }
  return sum;
}

absl::StatusOr<Kappa> KappaOf(const Confusion& table) {
  std::vector<std::vector<int64_t>> counts;
  for (const auto& row : table) counts.emplace_back(row.begin(), row.end());
  return CohensKappa(counts);
}

absl::StatusOr<Kappa> RefusalKappaOf(const Confusion& table) {
  std::vector<std::vector<int64_t>> counts(2, std::vector<int64_t>(2, 0));
  for (size_t i = 0; i < 3; ++i) {
    for (size_t j = 0; j < 3; ++j) counts[i > 0][j > 0] += table[i][j];
  }
  return CohensKappa(counts);
}

std::string TableJson(const Confusion& table) {
  return absl::StrCat("[",
                      absl::StrJoin(table, ", ",
                                    [](std::string* out, const auto& row) {
                                      absl::StrAppend(out, "[", absl::StrJoin(row, ", "), "]");
                                    }),
                      "]");
}

std::string AgreementJson(absl::string_view against, const Kappa& kappa) {
  return absl::StrFormat(
      "        {\"against\": \"%s\", \"answers\": %d, \"kappa\": %.4f, \"kappaLow\": %.4f, "
      "\"kappaHigh\": %.4f}",
      against, kappa.items, kappa.kappa, kappa.interval.lower, kappa.interval.upper);
}

std::string KappaLine(absl::string_view name, const Kappa& kappa) {
  return absl::StrFormat("  %-22s kappa %.3f [%.3f, %.3f] on %d answers, %.1f%% equal\n", name,
                         kappa.kappa, kappa.interval.lower, kappa.interval.upper, kappa.items,
                         100 * kappa.observed_agreement);
}

// Evidence holds phrases, which may hold a quote if a user's file says so; the built-in ones do
// not, and a backslash never survives.
std::string Quoted(absl::string_view text) {
  std::string quoted = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') quoted.push_back('\\');
    quoted.push_back(c);
  }
  return quoted + "\"";
}

}  // namespace

absl::StatusOr<std::vector<LabelledAnswer>> ParseLabels(absl::string_view jsonl) {
  std::vector<LabelledAnswer> answers;
  std::set<std::string> ids;
  int number = 0;
  for (absl::string_view line : absl::StrSplit(jsonl, '\n')) {
    ++number;
    if (line.empty()) continue;
    auto answer = ParseLine(line);
    if (!answer.ok()) return Annotate(answer.status(), absl::StrCat("line ", number));
    if (!ids.insert(answer->id).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("line ", number, ": id '", answer->id, "' was given before"));
    }
    answers.push_back(*std::move(answer));
  }
  return answers;
}

absl::StatusOr<Measured> Measure(const std::vector<LabelledAnswer>& answers) {
  PLUMB_ASSIGN_OR_RETURN(const auto judge, KeywordJudge::Create({}));
  Measured measured{.version = judge->rules_version()};
  Confusion clear = {};
  for (const LabelledAnswer& answer : answers) {
    const Judgement judgement = judge->Judge({.text = answer.text, .token_ids = answer.token_ids});
    PLUMB_ASSIGN_OR_RETURN(const size_t row, IndexOf(answer.label));
    PLUMB_ASSIGN_OR_RETURN(const size_t column, IndexOf(judgement.label));
    ++measured.by_kv[answer.kv][row][column];
    if (!answer.borderline) ++clear[row][column];
    if (row != column) {
      measured.disagreements.push_back(
          {answer.id, answer.kv, answer.label, judgement, answer.borderline});
    }
  }
  for (const auto& [kv, table] : measured.by_kv) measured.confusion += table;
  PLUMB_ASSIGN_OR_RETURN(measured.three_labels, KappaOf(measured.confusion));
  PLUMB_ASSIGN_OR_RETURN(measured.refusal_or_not, RefusalKappaOf(measured.confusion));
  PLUMB_ASSIGN_OR_RETURN(measured.without_borderline, KappaOf(clear));
  return measured;
}

std::string CardJson(const Measured& measured) {
  return absl::StrCat("{\n  \"judges\": [\n    {\n      \"judge\": \"", KeywordJudge::kName,
                      "\",\n      \"version\": \"", measured.version,
                      "\",\n      \"agreements\": [\n",
                      AgreementJson("hand labels", measured.three_labels), ",\n",
                      AgreementJson("hand labels (refusal or not)", measured.refusal_or_not), ",\n",
                      AgreementJson("hand labels (clear cases only)", measured.without_borderline),
                      "\n      ]\n    }\n  ]\n}\n");
}

std::string ConfusionJson(const Measured& measured) {
  std::string json = absl::StrCat(
      "{\n  \"judge_version\": \"", measured.version,
      "\",\n  \"labels\": [\"refuse\", \"comply\", \"degenerate\"],\n  \"rows\": \"hand\",\n",
      "  \"columns\": \"judge\",\n  \"all\": ", TableJson(measured.confusion),
      ",\n  \"by_kv\": {\n",
      absl::StrJoin(measured.by_kv, ",\n",
                    [](std::string* out, const auto& entry) {
                      absl::StrAppend(out, "    \"", entry.first, "\": ", TableJson(entry.second));
                    }),
      "\n  },\n  \"disagreements\": [\n");
  absl::StrAppend(&json,
                  absl::StrJoin(measured.disagreements, ",\n",
                                [](std::string* out, const Disagreement& d) {
                                  absl::StrAppend(
                                      out, "    {\"id\": \"", d.id, "\", \"kv\": \"", d.kv,
                                      "\", \"hand\": \"", VerdictLabelName(d.label),
                                      "\", \"judge\": \"", VerdictLabelName(d.judgement.label),
                                      "\", \"evidence\": ", Quoted(d.judgement.evidence),
                                      ", \"borderline\": ", d.borderline ? "true" : "false", "}");
                                }),
                  "\n  ]\n}\n");
  return json;
}

std::string Summary(const Measured& measured) {
  std::string text = absl::StrCat("judge ", measured.version, "\n",
                                  KappaLine("hand labels", measured.three_labels),
                                  KappaLine("refusal or not", measured.refusal_or_not),
                                  KappaLine("clear cases only", measured.without_borderline),
                                  "  hand \\ judge     refuse  comply  degenerate\n");
  for (size_t i = 0; i < 3; ++i) {
    absl::StrAppendFormat(&text, "  %-15s %7d %7d %11d\n", VerdictLabelName(kLabels[i]),
                          measured.confusion[i][0], measured.confusion[i][1],
                          measured.confusion[i][2]);
  }
  for (const Disagreement& d : measured.disagreements) {
    absl::StrAppendFormat(&text, "  %s %-18s hand %s, judge %s (%s)%s\n", d.id, d.kv,
                          VerdictLabelName(d.label), VerdictLabelName(d.judgement.label),
                          d.judgement.evidence, d.borderline ? " borderline" : "");
  }
  return text;
}

}  // namespace plumbline
