// How figures, names and enums are written in reports.
#pragma once

#include <string>

#include "plumbline/v1/report.pb.h"

namespace plumbline {

std::string PercentText(double value);                   // "12.3%"
std::string IntervalText(const v1::Interval& interval);  // "12.3% [8.0%, 17.9%]" or "not defined"
std::string RatioText(double value);                     // "1.07x"
std::string PValueText(double p);                        // "0.012", "<0.001"
std::string NumberText(double value);                    // 3 significant digits
std::string BytesText(double bytes);                     // "1.5 KiB"

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
