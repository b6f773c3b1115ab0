#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/common/status_macros.h"
#include "services/coordinator/planner/export_engines.h"
#include "services/coordinator/planner/planner.h"
#include "services/quant/plan_parser.h"

namespace plumbline {
namespace {

struct NamedPlan {
  std::string name, plan;
};

// What --plan may name. A custom study has no target, and any may have none yet.
std::vector<NamedPlan> NamedPlansOf(const v1::Report& report) {
  std::vector<NamedPlan> plans;
  if (!report.target().plan().empty()) plans.push_back({"target", report.target().plan()});
  for (const v1::PlanResult& plan : report.plans()) plans.push_back({plan.name(), plan.plan()});
  for (const v1::ConditionResult& r : report.sweep()) plans.push_back({r.name(), r.plan()});
  return plans;
}

// Quoted, for names hold commas.
std::string Known(const std::vector<NamedPlan>& plans) {
  if (plans.empty()) return "none yet";
  return absl::StrCat("\"",
                      absl::StrJoin(plans, "\", \"",
                                    [](std::string* text, const NamedPlan& plan) {
                                      absl::StrAppend(text, plan.name);
                                    }),
                      "\"");
}

absl::StatusOr<std::string> PlanNamed(const v1::Report& report, const std::string& name) {
  const std::vector<NamedPlan> plans = NamedPlansOf(report);
  if (name.empty()) {
    if (!report.headline().recommended_plan().empty()) return report.headline().recommended_plan();
    if (report.headline().decision() == v1::DECISION_SHIP) {
      return absl::FailedPreconditionError(
          absl::StrCat("no plan is recommended, for the target may ship as it is (",
                       report.target().plan(), "): export it with --plan target"));
    }
    const std::string& why = report.headline().recommendation();
    return absl::FailedPreconditionError(
        absl::StrCat("no plan is recommended", why.empty() ? "" : absl::StrCat(" (", why, ")"),
                     "; to export one all the same, name it (--plan): ", Known(plans)));
  }
  for (const NamedPlan& one : plans) {
    if (one.name == name) return one.plan;
  }
  return absl::NotFoundError(
      absl::StrCat("no plan \"", name, "\" in this report; it has ", Known(plans)));
}

}  // namespace

absl::Status CannotExpress(const std::string& engine, const std::string& why) {
  return absl::FailedPreconditionError(absl::StrCat(engine, " cannot express this plan: ", why));
}

std::string LayerFormatText(const LayerFormat& format) {
  const std::string key = FormatText(format.key);
  const std::string value = FormatText(format.value);
  return key == value ? key : absl::StrCat(key, "|", value);
}

absl::StatusOr<LayerFormat> UniformFormat(const EnginePlan& plan, const std::string& engine,
                                          const std::string& why_not) {
  for (size_t layer = 1; layer < plan.layers.size(); ++layer) {
    if (plan.layers[layer] == plan.layers[0]) continue;
    return CannotExpress(
        engine, absl::StrCat(why_not, "; layer 0 is ", LayerFormatText(plan.layers[0]), ", layer ",
                             layer, " is ", LayerFormatText(plan.layers[layer])));
  }
  return plan.layers[0];
}

absl::StatusOr<v1::ExportPlanResponse> ExportPlan(const v1::Report& report,
                                                  const v1::ExportPlanRequest& request) {
  EnginePlan plan{.model = report.provenance().model()};
  PLUMB_ASSIGN_OR_RETURN(plan.text, PlanNamed(report, request.plan_name()));
  if (plan.model.num_layers() == 0) {
    return absl::FailedPreconditionError("the report holds no model yet: the baseline is running");
  }
  PLUMB_ASSIGN_OR_RETURN(Plan parsed, ParsePlan(plan.text, {.paper_quirks = true}));
  PLUMB_ASSIGN_OR_RETURN(plan.layers, parsed.Resolve(static_cast<int>(plan.model.num_layers()),
                                                     static_cast<int>(plan.model.num_kv_heads()),
                                                     static_cast<int>(plan.model.head_dim())));
  absl::StatusOr<v1::ExportPlanResponse> response;
  switch (request.engine()) {
    case v1::SERVING_ENGINE_VLLM:
      response = VllmSettings(plan);
      break;
    case v1::SERVING_ENGINE_LLAMACPP:
      response = LlamaCppSettings(plan);
      break;
    case v1::SERVING_ENGINE_TRANSFORMERS:
      response = TransformersSettings(plan);
      break;
    default:
      return absl::InvalidArgumentError("engine must be one of vllm, llamacpp, transformers");
  }
  if (response.ok()) response->set_plan(plan.text);
  return response;
}

}  // namespace plumbline
