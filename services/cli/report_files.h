// Reports from the coordinator to files, and the few lines that end a study on the terminal.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "plumbline/v1/report.pb.h"
#include "services/cli/session.h"

namespace plumbline {

struct NamedFile {
  std::string name;
  std::string bytes;
};

absl::StatusOr<std::vector<NamedFile>> FetchReport(Session& session, const std::string& id,
                                                   v1::ReportFormat format, bool show_texts);

// HTML and JSON into `folder` (0700; files 0600), then the verdict on standard output.
absl::Status WriteReportFolder(Session& session, const std::string& id, const std::string& folder);

// Verdict, floor, recommendation, judge and warnings in a few lines.
std::string VerdictText(const v1::Report& report);

}  // namespace plumbline
