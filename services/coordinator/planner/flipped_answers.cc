#include "services/coordinator/planner/counting.h"
#include "services/coordinator/planner/plan_text.h"
#include "services/coordinator/planner/planner.h"
#include "services/coordinator/planner/selection.h"
#include "services/coordinator/planner/stages.h"

namespace plumbline {

std::vector<v1::AnswerExample> FlippedAnswers(const StudyContext& context, const v1::Report& report,
                                              const ResultView& results, int limit) {
  std::vector<Condition> conditions;
  if (report.target().cells() > 0) conditions.push_back(TargetCondition(context));
  for (const v1::ConditionResult& r : report.sweep()) {
    if (r.plan() == report.target().plan()) continue;
    conditions.push_back({.name = r.name(), .plan = r.plan(), .prompts = AllPrompts(context)});
  }
  std::vector<v1::AnswerExample> examples;
  for (const Condition& condition : conditions) {
    auto outcomes = OutcomesOf(context, results, condition);
    if (!outcomes.ok()) continue;  // a purged or unfinished condition has no examples
    for (const PromptOutcome& outcome : *outcomes) {
      if (!outcome.is_flip()) continue;
      if (static_cast<int>(examples.size()) >= limit) return examples;
      v1::AnswerExample& example = examples.emplace_back();
      example.set_prompt_id(outcome.prompt->id());
      example.set_prompt_set(outcome.prompt->prompt_set());
      example.set_condition(condition.name);
      example.set_baseline(outcome.baseline_label);
      example.set_verdict(outcome.label);
    }
  }
  return examples;
}

}  // namespace plumbline
