// Checks of flag values that several commands share.
#pragma once

#include "CLI/CLI.hpp"
#include "absl/status/status.h"

namespace plumbline {

// A flip rate that a study or a gate may be held to: above 0 and below 1. 0 given by hand is
// refused, because on the wire it stands for a flag that was not given.
CLI::Validator FlipRateCheck();

// --top-p narrows what is drawn, and nothing is drawn at temperature 0. top_p: 0 = not given.
absl::Status CheckSampling(double temperature, double top_p);

}  // namespace plumbline
