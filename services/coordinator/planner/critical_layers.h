// Which layers get more prompts and which are critical: the rules of services/pcr on a report's
// counts.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/coordinator/planner/planner.h"

namespace plumbline {

// After the screen. Ascending.
absl::StatusOr<std::vector<uint32_t>> LayersToConfirm(const v1::Report& report);

// After the confirmation: fills holm_p, critical and unclear of every layer, critical_layers and
// unclear_layers (most flips first) and pattern.
absl::Status MarkCriticalLayers(const StudyContext& context, v1::Report* report);

}  // namespace plumbline
