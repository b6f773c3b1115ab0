// A finished (or running) study's report as files for people and programs. Pure: no store, no RPC,
// no clock; equal reports give equal bytes.
//
//   PLUMB_ASSIGN_OR_RETURN(auto files, RenderReport(report, v1::REPORT_FORMAT_HTML, false));
//   // files[0] = {"report.html", "<!doctype html>..."}
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "plumbline/v1/experiments.pb.h"
#include "plumbline/v1/report.pb.h"

namespace plumbline {

struct ReportFile {
  std::string name;  // no folder
  std::string bytes;
};

// HTML: one self-contained file (no script, no network, light and dark). JSON: the whole Report as
// proto3 JSON. CSV and LaTeX: a file a table; empty tables are left out. CANONICAL: JSON without
// times, worker names, ids and counts of what was shared, cells sorted by key.
//
// Texts of prompts and answers appear only with show_texts; the study's inline prompts and utility
// text never do. InvalidArgument for REPORT_FORMAT_UNSPECIFIED.
absl::StatusOr<std::vector<ReportFile>> RenderReport(const v1::Report& report,
                                                     v1::ReportFormat format, bool show_texts);

}  // namespace plumbline
