// Where the engine's time goes, on the worker's metrics page.
#pragma once

#include "services/engine/engine.h"
#include "services/rpc/metrics.h"

namespace plumbline {

// Adds what one engine step did: tokens by phase, seconds by part, and the step's duration. The
// duration minus the parts is what the batch's bookkeeping took.
void CountStep(const EngineStats& added, double seconds, Metrics* metrics);

}  // namespace plumbline
