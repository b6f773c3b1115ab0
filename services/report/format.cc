#include "services/report/format.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "services/common/figures.h"

namespace plumbline {

std::vector<double> FlipLimits(const v1::Report& report) {
  std::vector<double> limits = {kSafeFlips, kCompleteFlips};
  if (report.study().flip_limit() > 0) limits.push_back(report.study().flip_limit());
  return limits;
}

std::string IntervalText(const v1::Interval& interval, absl::Span<const double> limits) {
  if (!interval.defined()) return "not defined";
  return PercentRangeText(interval.estimate(), interval.low(), interval.high(), limits);
}

std::string RatioText(double value, absl::Span<const double> limits) {
  return absl::StrCat(FixedText(value, 2, limits), "x");
}

std::string PValueText(double p) { return p < 0.001 ? "<0.001" : FixedText(p, 3, {kSignificant}); }

std::string NumberText(double value) { return absl::StrFormat("%.3g", value); }

std::string BytesText(double bytes) {
  if (bytes < 1024) return absl::StrFormat("%.0f B", bytes);
  if (bytes < 1024.0 * 1024) return absl::StrFormat("%.1f KiB", bytes / 1024);
  return absl::StrFormat("%.1f MiB", bytes / 1024 / 1024);
}

std::string DecisionText(v1::Decision decision) {
  switch (decision) {
    case v1::DECISION_SHIP:
      return "ship";
    case v1::DECISION_DO_NOT_SHIP:
      return "do not ship";
    case v1::DECISION_UNDECIDED:
      return "undecided";
    default:
      return "no decision";
  }
}

std::string SubjectText(const v1::Report& report) {
  const std::string& model = report.provenance().model().name();
  if (!report.study().has_custom()) {
    return absl::StrCat(model, " served with ", report.study().target());
  }
  return absl::StrCat(model, " under ", CountText(report.study().custom().plans_size(), "plan"));
}

std::string ModeText(v1::FailureMode mode) {
  switch (mode) {
    case v1::FAILURE_MODE_UNDETERMINED:
      return "undetermined";
    case v1::FAILURE_MODE_NONE:
      return "none";
    case v1::FAILURE_MODE_HYPER_VULNERABLE:
      return "hyper-vulnerable";
    case v1::FAILURE_MODE_DILUTION:
      return "multi-layer dilution";
    case v1::FAILURE_MODE_OUTLIER_AS_SAFETY:
      return "outlier-as-safety";
    case v1::FAILURE_MODE_MIXED:
      return "mixed";
    case v1::FAILURE_MODE_OUTLIER_CRUSHES:
      return "outlier-crushes-safety";
    default:
      return "not classified";
  }
}

std::string PatternText(v1::AttentionPattern pattern) {
  switch (pattern) {
    case v1::ATTENTION_PATTERN_NONE:
      return "no critical layer";
    case v1::ATTENTION_PATTERN_CONCENTRATED:
      return "concentrated";
    case v1::ATTENTION_PATTERN_DISTRIBUTED_EARLY:
      return "distributed-early";
    case v1::ATTENTION_PATTERN_ULTRA_DISTRIBUTED:
      return "ultra-distributed";
    default:
      return "not measured";
  }
}

std::string PhaseText(v1::Phase phase) {
  switch (phase) {
    case v1::PHASE_SAFE:
      return "safe";
    case v1::PHASE_COLLAPSE:
      return "collapse";
    case v1::PHASE_COMPLETE:
      return "complete";
    default:
      return "-";
  }
}

std::string VerdictText(v1::VerdictLabel label) {
  switch (label) {
    case v1::VERDICT_LABEL_REFUSE:
      return "refuse";
    case v1::VERDICT_LABEL_COMPLY:
      return "comply";
    case v1::VERDICT_LABEL_DEGENERATE:
      return "degenerate";
    case v1::VERDICT_LABEL_JUDGE_FAILED:
      return "judge failed";
    case v1::VERDICT_LABEL_NONFINITE:
      return "nonfinite";
    default:
      return "-";
  }
}

std::string HtmlEscape(const std::string& text) {
  return absl::StrReplaceAll(
      text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}, {"'", "&#39;"}});
}

std::string LatexEscape(const std::string& text) {
  return absl::StrReplaceAll(text, {{"\\", "\\textbackslash{}"},
                                    {"{", "\\{"},
                                    {"}", "\\}"},
                                    {"$", "\\$"},
                                    {"&", "\\&"},
                                    {"#", "\\#"},
                                    {"^", "\\textasciicircum{}"},
                                    {"_", "\\_"},
                                    {"~", "\\textasciitilde{}"},
                                    {"%", "\\%"},
                                    {"|", "\\textbar{}"},
                                    {"<", "\\textless{}"},
                                    {">", "\\textgreater{}"}});
}

std::string CsvCell(const std::string& text) {
  std::string cell = text;
  const bool number = !cell.empty() && (cell[0] == '-' || cell[0] == '+') && cell.size() > 1 &&
                      (std::isdigit(static_cast<unsigned char>(cell[1])) != 0 || cell[1] == '.');
  if (!cell.empty() && std::string("=+-@").find(cell[0]) != std::string::npos && !number) {
    cell = "'" + cell;
  }
  if (cell.find_first_of(",\"\n\r") == std::string::npos) return cell;
  return absl::StrCat("\"", absl::StrReplaceAll(cell, {{"\"", "\"\""}}), "\"");
}

}  // namespace plumbline
