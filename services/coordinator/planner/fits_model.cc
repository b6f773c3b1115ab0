#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/cells/cells.h"
#include "services/common/status_macros.h"
#include "services/coordinator/planner/plan_text.h"
#include "services/coordinator/planner/planner.h"

namespace plumbline {
namespace {

std::vector<std::pair<std::string, std::string>> PlansOf(const v1::Study& study) {
  std::vector<std::pair<std::string, std::string>> plans;
  if (!study.target().empty()) plans.emplace_back("target", TargetPlan(study));
  const auto add = [&plans](const char* field, const auto& texts) {
    for (int i = 0; i < texts.size(); ++i) {
      plans.emplace_back(absl::StrCat(field, "[", i, "]"), texts.Get(i));
    }
  };
  add("sweep.plans", study.sweep().plans());
  add("mitigate.plans", study.mitigate().plans());
  add("custom.plans", study.custom().plans());
  if (study.has_canary()) plans.emplace_back("canary.plan", study.canary().plan());
  return plans;
}

}  // namespace

absl::Status CheckStudyFitsModel(const v1::Study& study, const v1::ModelInfo& model) {
  if (model.raw_only() && !study.decoding().raw()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "study.decoding.raw: model ", model.name(),
        " has no chat format, so it takes raw prompts only, as base models do: set raw (--raw), or "
        "import a model whose tokenizer has a chat template"));
  }
  if (study.decoding().max_new_tokens() >= model.max_context()) {
    return absl::InvalidArgumentError(
        absl::StrCat("study.decoding.max_new_tokens: ", study.decoding().max_new_tokens(),
                     " answer tokens do not fit the context of ", model.max_context(),
                     " tokens of model ", model.name()));
  }
  if (model.has_trained_on() && study.exclude_prompt_sha256().empty() &&
      !study.include_trained_on()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "study.exclude_prompt_sha256: model ", model.name(),
        " comes with a list of prompts that it was trained on, which its bundle alone holds: give "
        "the bundle's folder as --model or the list as --exclude to leave them out, or set "
        "include_trained_on (--include-trained-on) to keep them"));
  }
  for (const auto& [field, plan] : PlansOf(study)) {
    const auto canonical = CanonicalizePlan(plan, model, study.paper_quirks());
    if (!canonical.ok()) return Annotate(canonical.status(), absl::StrCat("study.", field));
  }
  return absl::OkStatus();
}

}  // namespace plumbline
