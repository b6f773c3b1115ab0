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

// Writes files (0600) to `out`: a single one under that very name, unless it is a folder or ends in
// '/'; else each under its own name into it. A folder that is not there is made (0700); one that is
// there keeps its permissions. Returns the paths.
absl::StatusOr<std::vector<std::string>> WriteFiles(const std::vector<NamedFile>& files,
                                                    const std::string& out);

// HTML and JSON into `folder`, as WriteFiles does, then the verdict on standard output.
absl::Status WriteReportFolder(Session& session, const std::string& id, const std::string& folder);

// Verdict, floor, recommendation, judge and warnings in a few lines.
std::string VerdictText(const v1::Report& report);

}  // namespace plumbline
