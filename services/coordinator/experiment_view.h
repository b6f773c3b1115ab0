// What clients see of an experiment.
#pragma once

#include "absl/status/statusor.h"
#include "plumbline/v1/experiments.pb.h"
#include "services/common/clock.h"
#include "services/coordinator/model_directory.h"
#include "services/coordinator/study_logic.h"
#include "services/store/store.h"

namespace plumbline {

// Counts and rates included. Prompts that came along with the study are not.
absl::StatusOr<v1::Experiment> ViewOf(Store* store, const StudyLogic& logic,
                                      const ModelDirectory& directory, Clock* clock,
                                      const ExperimentRecord& record);

}  // namespace plumbline
