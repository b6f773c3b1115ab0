// A plan in the words of a serving engine, where that engine does the same arithmetic. Each
// function answers FailedPrecondition with the first difference and, where there is one, the format
// to measure instead.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/coordinator/planner/planner.h"
#include "services/quant/kv_format.h"

namespace plumbline {

struct EnginePlan {
  std::string text;
  std::vector<LayerFormat> layers;
  v1::ModelInfo model;
};

absl::StatusOr<v1::ExportPlanResponse> VllmSettings(const EnginePlan& plan);
absl::StatusOr<v1::ExportPlanResponse> LlamaCppSettings(const EnginePlan& plan);
absl::StatusOr<v1::ExportPlanResponse> TransformersSettings(const EnginePlan& plan);

// ---- shared
// ---------------------------------------------------------------------------------------

absl::Status CannotExpress(const std::string& engine, const std::string& why);

// "keys|values" as text.
std::string LayerFormatText(const LayerFormat& format);

// The format of all layers. FailedPrecondition names two layers that differ.
absl::StatusOr<LayerFormat> UniformFormat(const EnginePlan& plan, const std::string& engine,
                                          const std::string& why_not);

}  // namespace plumbline
