// The Engine over any device's Forward: continuous batching, stopping, results. No torch.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "services/engine/batch/forward.h"
#include "services/engine/batch/scheduler.h"
#include "services/engine/batch/sequence.h"
#include "services/engine/engine.h"

namespace plumbline {

std::unique_ptr<Engine> CreateBatchEngine(std::unique_ptr<Forward> forward,
                                          const SchedulerOptions& options);

}  // namespace plumbline
