// The stored report with what only the store knows at this moment: who ran what, violations,
// examples, and for the canonical form every cell.
#pragma once

#include "absl/status/statusor.h"
#include "plumbline/v1/experiments.pb.h"
#include "plumbline/v1/report.pb.h"
#include "services/coordinator/study_logic.h"
#include "services/store/store.h"

namespace plumbline {

struct ReportRequest {
  v1::ReportFormat format = v1::REPORT_FORMAT_HTML;
  bool show_texts = false;
};

// FailedPrecondition while no stage has concluded.
absl::StatusOr<v1::Report> BuildReport(Store* store, const StudyLogic& logic,
                                       const ExperimentRecord& record,
                                       const ReportRequest& request);

}  // namespace plumbline
