#include <cctype>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "services/common/figures.h"
#include "services/report/format.h"
#include "services/report/html_parts.h"
#include "services/report/notes.h"

namespace plumbline {
namespace {

constexpr size_t kOpening = 30;  // characters: "None found." alone tells too little
constexpr size_t kSentence = 260;

const char* DecisionClass(v1::Decision decision) {
  switch (decision) {
    case v1::DECISION_SHIP:
      return "good";
    case v1::DECISION_DO_NOT_SHIP:
      return "bad";
    default:
      return "unsure";
  }
}

std::string Fact(const std::string& name, const std::string& value, const std::string& detail) {
  return absl::StrCat("<div class=\"fact\"><span>", HtmlEscape(name), "</span><b>",
                      HtmlEscape(value), "</b><span>", HtmlEscape(detail), "</span></div>\n");
}

std::string RangeText(const v1::Interval& interval, absl::Span<const double> limits) {
  return absl::StrCat("[", PercentText(interval.low(), limits), ", ",
                      PercentText(interval.high(), limits), "]");
}

// The recommended plan; without one, the plan that did best on validation.
const v1::PlanResult* ShownPlan(const v1::Report& report) {
  const v1::PlanResult* winner = nullptr;
  for (const v1::PlanResult& plan : report.plans()) {
    if (plan.recommended()) return &plan;
    if (plan.winner()) winner = &plan;
  }
  return winner;
}

// The end of the first sentence that ends at `from` or later; npos where none follows it.
size_t SentenceEnd(const std::string& text, size_t from) {
  for (size_t at = text.find(". ", from); at != std::string::npos; at = text.find(". ", at + 1)) {
    const bool next =
        at + 2 < text.size() && std::isupper(static_cast<unsigned char>(text[at + 2])) != 0;
    if (next) return at + 1;
  }
  return std::string::npos;
}

// Where the first sentence that tells something ends.
size_t OpeningEnd(const std::string& text) {
  const size_t end = SentenceEnd(text, kOpening);
  if (end != std::string::npos) return end;
  const size_t clause = text.size() > kSentence ? text.find("; ") : std::string::npos;
  return clause == std::string::npos ? text.size() : clause;
}

std::string RecommendationText(const std::string& text) {
  if (text.empty()) return "";
  const size_t end = OpeningEnd(text);
  std::string html = Paragraph(text.substr(0, end));
  if (end == text.size()) return html;
  absl::StrAppend(&html, "<details><summary>In detail</summary><ul>");
  std::string rest = text.substr(end + (text[end] == ';' ? 2 : 1));
  while (!rest.empty()) {
    const size_t stop = SentenceEnd(rest, 0);
    for (absl::string_view part : absl::StrSplit(rest.substr(0, stop), "; ")) {
      absl::StrAppend(&html, "<li>", HtmlEscape(Capitalised(std::string(part))), "</li>");
    }
    rest = stop == std::string::npos ? "" : rest.substr(stop + 1);
  }
  return html + "</ul></details>\n";
}

// Without the decision in front, which stands above it in large letters.
std::string Sentence(const v1::Headline& headline) {
  const std::string word = absl::StrCat(Capitalised(DecisionText(headline.decision())), ": ");
  const std::string& text = headline.sentence();
  return text.rfind(word, 0) == 0 ? Capitalised(text.substr(word.size())) : text;
}

// What else the target does to answers; a reader of the flip rate alone would miss it.
std::string OtherChanges(const v1::ConditionResult& target) {
  std::string text;
  if (target.degenerate() > 0) {
    absl::StrAppend(&text, "; ", target.degenerate(), " more become degenerate");
  }
  if (target.nonfinite() > 0) {
    absl::StrAppend(&text, "; ", target.nonfinite(),
                    " more break off at numbers that are not finite");
  }
  if (target.reverse_flips() > 0) {
    absl::StrAppend(&text, "; the other way, ", target.reverse_flips(), " of ",
                    CountText(target.baseline_complies(), "answer"), " become refusals");
  }
  if (target.harmless_refused() != target.harmless_refused_baseline()) {
    absl::StrAppend(&text, "; of ", CountText(target.harmless(), "harmless prompt"), " ",
                    target.harmless_refused(), " are refused, ", target.harmless_refused_baseline(),
                    " by the baseline");
  }
  return text;
}

std::string FloorFact(const v1::Report& report) {
  const v1::ConditionResult& target = report.target();
  if (!target.floor_measured()) {
    return Fact("sensitivity floor", "not measured",
                report.floor().replicas() > 0 ? "no refusal of its prompts could be compared"
                                              : "no jitter replicas ran");
  }
  const v1::ConditionResult& baseline = report.baseline();
  const std::string sample = FloorSample(report);
  return Fact("sensitivity floor",
              absl::StrCat(absl::StrJoin(baseline.replica_flips(), " and "), " of ",
                           baseline.floor_prompts()),
              absl::StrCat("refusals flip by numeric noise alone, without any format",
                           sample.empty() ? "" : absl::StrCat(" (", sample, ")"),
                           "; the target's flips are ",
                           target.above_floor() ? "above that" : "not distinguishable",
                           ". Under noise the target flips ",
                           absl::StrJoin(target.replica_flips(), " and "), " of ",
                           target.floor_prompts(), ", undisturbed ", target.floor_flips()));
}

std::string TargetFacts(const v1::Report& report) {
  const v1::ConditionResult& target = report.target();
  const bool ran = target.cells() > 0;
  const std::vector<double> limits = FlipLimits(report);
  std::string html =
      !ran ? Fact("refusals that flip under the target", "not run", "")
      : !target.flip_rate().defined()
          ? Fact("refusals that flip under the target", "not defined",
                 target.unmeasured() ? "none could be measured" : "no refusal to flip")
          : Fact("refusals that flip under the target",
                 PercentText(target.flip_rate().estimate(), limits),
                 absl::StrCat(RangeText(target.flip_rate(), limits), ", ", target.flips(), " of ",
                              target.baseline_refusals(), OtherChanges(target)));
  html += FloorFact(report);
  if (ran) {
    html += Fact(
        "KV memory of the target", RatioText(target.memory_vs_fp()),
        absl::StrCat("of unquantized; ", PercentText(target.quantized_share(), {kQuantizedEnough}),
                     " of attended elements were held quantized"));
  }
  return html;
}

std::string JudgeFact(const v1::JudgeCard& card) {
  if (card.judge().empty()) return "";
  if (card.agreements_size() == 0) {
    return Fact("judge", card.judge(), "its card tells no agreement with hand labels");
  }
  const v1::JudgeAgreement& first = card.agreements(0);
  return Fact(absl::StrCat("judge agrees with ", first.against()),
              absl::StrFormat("kappa %.2f", first.kappa()),
              absl::StrFormat("[%.2f, %.2f], %s, judge %s", first.kappa_low(), first.kappa_high(),
                              CountText(first.answers(), "answer"), card.judge()));
}

std::string PlanFacts(const v1::Report& report) {
  if (!AnyTried(report)) {
    return report.headline().decision() == v1::DECISION_SHIP
               ? Fact("recommended plan", "none needed", "")
               : Fact("recommended plan", "not searched", "no plan was tried");
  }
  const v1::PlanResult* plan = ShownPlan(report);
  if (plan == nullptr) {
    return Fact("recommended plan", "none found",
                absl::StrCat(CountText(report.plans_size(), "plan"), " compared"));
  }
  const bool splits = HasSplits(report);
  const char* best = splits ? "best on validation: " : "the failure mode's own: ";
  std::string html = plan->recommended()
                         ? Fact("recommended plan", plan->name(), plan->plan())
                         : Fact("recommended plan", "none found", absl::StrCat(best, plan->name()));
  const std::string whose = plan->recommended() ? "its " : absl::StrCat(plan->name(), ": ");
  const std::string prompts = PlanPrompts(report, plan->recovery_on_test());
  const std::string on = splits ? absl::StrCat(prompts, " prompts") : absl::StrCat("the ", prompts);
  html += plan->recovery().defined()
              ? Fact(absl::StrCat(whose, "recovery"), PercentText(plan->recovery().estimate(), {0}),
                     absl::StrCat(RangeText(plan->recovery(), {0}), " on ", on))
              : Fact(absl::StrCat(whose, "recovery"), "not defined",
                     "the target flips too few refusals there");
  html += Fact(absl::StrCat(whose, "KV memory"), RatioText(plan->memory_vs_target()),
               "of the target's");
  return html;
}

// A custom study asks for no verdict.
std::string HeadingWord(const v1::Report& report) {
  return report.study().has_custom() ? "measured" : DecisionText(report.headline().decision());
}

}  // namespace

std::string FirstScreen(const v1::Report& report) {
  const v1::Headline& headline = report.headline();
  std::string html = absl::StrCat(
      "<h1>", HtmlEscape(SubjectText(report)), "</h1>\n<section class=\"verdict ",
      report.study().has_custom() ? "" : DecisionClass(headline.decision()),
      "\"><div class=\"word\">", HtmlEscape(Capitalised(HeadingWord(report))), "</div>\n",
      Paragraph(Sentence(headline)), RecommendationText(headline.recommendation()),
      "</section>\n<div class=\"facts\">\n");
  if (report.has_target()) html += TargetFacts(report);
  html += JudgeFact(report.judge_card());
  if (!report.study().has_custom()) html += PlanFacts(report);
  if (headline.mode() != v1::FAILURE_MODE_UNSPECIFIED) {
    html += Fact("failure mode", ModeText(headline.mode()),
                 absl::StrCat(ModeMeaning(headline.mode()),
                              headline.exploratory() ? "; exploratory: of too few refusals" : ""));
  }
  html += "</div>\n";
  if (report.warnings_size() > 0) {
    html += "<ul class=\"warnings\">\n";
    for (const std::string& warning : report.warnings()) {
      absl::StrAppend(&html, "<li>", HtmlEscape(Capitalised(warning)), "</li>\n");
    }
    html += "</ul>\n";
  }
  return html;
}

}  // namespace plumbline
