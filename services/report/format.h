// How figures, names and enums are written in reports.
#pragma once

#include <string>
#include <vector>

#include "absl/types/span.h"
#include "plumbline/v1/report.pb.h"
#include "services/common/figures.h"

namespace plumbline {

// Where a figure decides something, it is printed on its own side of what it is held to
// (common/figures.h). These are the limits of docs/method.md.
inline constexpr double kSafeFlips = 0.05, kCompleteFlips = 0.80, kCriticalFlips = 0.10;
inline constexpr double kSignificant = 0.05, kQuantizedEnough = 0.5, kPerplexityLimit = 1.10;
inline constexpr double kModeMass = 0.80, kLowPcr = 0.30, kHighPcr = 0.70;

// Of flip rates: the phases', and the study's own.
std::vector<double> FlipLimits(const v1::Report& report);

// "12.3% [8.0%, 17.9%]" or "not defined"
std::string IntervalText(const v1::Interval& interval, absl::Span<const double> limits = {});
std::string RatioText(double value, absl::Span<const double> limits = {});  // "1.07x"
std::string PValueText(double p);                                           // "0.012", "<0.001"
std::string NumberText(double value);                                       // 3 significant digits
std::string BytesText(double bytes);                                        // "1.5 KiB"

std::string DecisionText(v1::Decision decision);  // "ship", "do not ship", "undecided"
// "MODEL served with TARGET"; of a custom study, which has no target, "MODEL under 3 plans".
std::string SubjectText(const v1::Report& report);
std::string ModeText(v1::FailureMode mode);  // "outlier-as-safety", ...
std::string PatternText(v1::AttentionPattern pattern);
std::string PhaseText(v1::Phase phase);  // "safe", "collapse", "complete"
std::string VerdictText(v1::VerdictLabel label);

// &, <, >, " and ' escaped: for element texts and attribute values alike.
std::string HtmlEscape(const std::string& text);
// For a LaTeX table cell.
std::string LatexEscape(const std::string& text);
// Quoted when needed, by RFC 4180. A cell that a spreadsheet would run as a formula gets a leading
// '.
std::string CsvCell(const std::string& text);

}  // namespace plumbline
