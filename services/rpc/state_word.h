// What people read for a study's state.
#pragma once

#include "plumbline/v1/study.pb.h"

namespace plumbline {

// "cancelled" of EXPERIMENT_STATE_CANCELLED; "unknown" of one that this build does not have.
const char* ExperimentStateWord(v1::ExperimentState state);

}  // namespace plumbline
