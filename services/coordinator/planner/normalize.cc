// Defaults and checks of a study, before anything is planned.
#include <algorithm>
#include <cmath>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "services/common/status_macros.h"
#include "services/coordinator/planner/plan_text.h"
#include "services/coordinator/planner/planner.h"
#include "services/quant/plan_parser.h"

namespace plumbline {
namespace {

constexpr uint32_t kDefaultNewTokens = 48;
constexpr uint32_t kMaxNewTokens = 4096;
constexpr uint32_t kDefaultReplicas = 2;
constexpr uint32_t kMaxReplicas = 16;
constexpr double kDefaultFlipLimit = 0.05;
constexpr int kMaxPlans = 1000;
constexpr size_t kMaxNameBytes = 200;
constexpr size_t kMinDigestPrefix = 1;

absl::Status Bad(absl::string_view field, absl::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat("study.", field, ": ", problem));
}

absl::Status CheckPlan(absl::string_view field, const std::string& text, bool quirks) {
  if (text.empty()) return Bad(field, "is empty; give a plan such as \"*:int4.asym.token\"");
  auto plan = ParsePlan(text, {.paper_quirks = quirks});
  if (plan.ok()) return absl::OkStatus();
  return Annotate(plan.status(), absl::StrCat("study.", field));
}

absl::Status CheckPlans(absl::string_view field,
                        const google::protobuf::RepeatedPtrField<std::string>& plans,
                        bool may_be_empty, bool quirks) {
  if (plans.empty() && !may_be_empty) return Bad(field, "is empty; give at least one plan");
  if (plans.size() > kMaxPlans) {
    return Bad(field, absl::StrCat("has ", plans.size(), " plans; at most ", kMaxPlans));
  }
  std::set<std::string> seen;
  for (int i = 0; i < plans.size(); ++i) {
    PLUMB_RETURN_IF_ERROR(CheckPlan(absl::StrCat(field, "[", i, "]"), plans.Get(i), quirks));
    if (!seen.insert(plans.Get(i)).second) {
      return Bad(field, absl::StrCat("names \"", plans.Get(i), "\" twice"));
    }
  }
  return absl::OkStatus();
}

absl::Status NormalizeDecoding(v1::Study* study) {
  v1::DecodingSettings* decoding = study->mutable_decoding();
  if (decoding->max_new_tokens() == 0) decoding->set_max_new_tokens(kDefaultNewTokens);
  if (decoding->max_new_tokens() > kMaxNewTokens) {
    return Bad("decoding.max_new_tokens",
               absl::StrCat("must be 1..", kMaxNewTokens, ", got ", decoding->max_new_tokens()));
  }
  v1::Sampling* sampling = decoding->mutable_sampling();
  const double temperature = sampling->temperature();
  if (!std::isfinite(temperature) || temperature < 0 || temperature > 10) {
    return Bad("decoding.sampling.temperature",
               absl::StrCat("must be 0 (greedy) to 10, got ", temperature));
  }
  if (!std::isfinite(sampling->top_p()) || sampling->top_p() < 0 || sampling->top_p() > 1) {
    return Bad("decoding.sampling.top_p",
               absl::StrCat("must lie in (0, 1] (0 means 1), got ", sampling->top_p()));
  }
  if (sampling->top_p() == 0) sampling->set_top_p(1);
  // A greedy cell draws nothing: its key must not depend on a seed.
  if (temperature == 0) {
    sampling->set_top_p(1);
    sampling->set_seed(0);
    sampling->set_sample_index(0);
  } else if (sampling->seed() == 0) {
    sampling->set_seed(study->seed());
  }
  if (decoding->raw() && !study->system_prompt().empty()) {
    return Bad("system_prompt", "cannot be used with decoding.raw, which has no chat format");
  }
  return absl::OkStatus();
}

// stop_on_verdict of a normalized study is the judge's name; cells carry its version as well.
absl::Status NormalizeJudge(v1::Study* study) {
  if (study->judge().empty()) study->set_judge("keyword");
  v1::DecodingSettings* decoding = study->mutable_decoding();
  const std::string& stop = decoding->stop_on_verdict();
  const absl::string_view stop_judge = absl::string_view(stop).substr(0, stop.find('/'));
  if (!stop.empty() && study->run_to_the_end()) {
    return Bad("decoding.stop_on_verdict",
               absl::StrCat("is \"", stop, "\", but run_to_the_end is set; choose one"));
  }
  if (!stop.empty() && stop_judge != study->judge()) {
    return Bad("decoding.stop_on_verdict",
               absl::StrCat("names \"", stop, "\", but the judge is \"", study->judge(), "\""));
  }
  if (!stop.empty() && study->judge() != "keyword") {
    return Bad("decoding.stop_on_verdict",
               absl::StrCat("only the keyword judge can stop an answer early, not \"",
                            study->judge(), "\""));
  }
  const bool stops = !study->run_to_the_end() && study->judge() == "keyword";
  decoding->set_stop_on_verdict(stops ? study->judge() : "");
  return absl::OkStatus();
}

bool IsSha256(const std::string& text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

absl::Status CheckPrompts(const v1::Study& study) {
  if (study.prompt_sets().empty()) {
    return Bad("prompt_sets", "is empty; name a set such as \"builtin\" or send prompts inline");
  }
  std::set<std::string> names;
  for (int i = 0; i < study.prompt_sets_size(); ++i) {
    const v1::PromptSetRef& set = study.prompt_sets(i);
    const std::string field = absl::StrCat("prompt_sets[", i, "]");
    if (set.name().empty()) return Bad(field, "has no name");
    if (!names.insert(set.name()).second) {
      return Bad(field, absl::StrCat("names \"", set.name(), "\" a second time"));
    }
    if (!set.sha256().empty() && !IsSha256(set.sha256())) {
      return Bad(
          absl::StrCat(field, ".sha256"),
          absl::StrCat("must be 64 lower-case hexadecimal characters, got \"", set.sha256(), "\""));
    }
  }
  for (int i = 0; i < study.exclude_prompt_sha256_size(); ++i) {
    if (!IsSha256(study.exclude_prompt_sha256(i))) {
      return Bad(absl::StrCat("exclude_prompt_sha256[", i, "]"),
                 absl::StrCat("must be 64 lower-case hexadecimal characters, got \"",
                              study.exclude_prompt_sha256(i), "\""));
    }
  }
  return absl::OkStatus();
}

absl::Status NormalizeLimits(v1::Study* study) {
  const bool paper = study->policy() == v1::POLICY_PAPER;
  if (study->jitter_replicas() == 0 && !paper) study->set_jitter_replicas(kDefaultReplicas);
  if (study->jitter_replicas() > kMaxReplicas) {
    return Bad("jitter_replicas",
               absl::StrCat("must be at most ", kMaxReplicas, ", got ", study->jitter_replicas()));
  }
  if (study->flip_limit() == 0) study->set_flip_limit(kDefaultFlipLimit);
  if (!(study->flip_limit() > 0 && study->flip_limit() < 1)) {
    return Bad("flip_limit", absl::StrCat("must lie in (0, 1), got ", study->flip_limit()));
  }
  return absl::OkStatus();
}

// The paper ablates 20 prompts, of one set, once.
void NormalizeDiagnose(bool paper, v1::DiagnoseStudy* study) {
  if (study->screen_prompts() == 0) study->set_screen_prompts(paper ? 20 : 24);
  if (study->confirm_prompts() == 0 && !paper) study->set_confirm_prompts(72);
  if (study->channel_prompts() == 0 && paper) study->set_channel_prompts(20);
  if (study->validation_prompts() == 0 && paper) study->set_validation_prompts(20);
}

absl::Status NormalizeMitigate(bool quirks, v1::MitigateStudy* study) {
  PLUMB_RETURN_IF_ERROR(CheckPlans("mitigate.plans", study->plans(), false, quirks));
  if (study->plan_names_size() == 0) {
    for (const std::string& plan : study->plans()) study->add_plan_names(plan);
  }
  if (study->plan_names_size() != study->plans_size()) {
    return Bad("mitigate.plan_names",
               absl::StrCat("has ", study->plan_names_size(), " names for ", study->plans_size(),
                            " plans; give as many, or none"));
  }
  std::set<std::string> names;
  for (const std::string& name : study->plan_names()) {
    if (name.empty()) return Bad("mitigate.plan_names", "holds an empty name");
    if (!names.insert(name).second) {
      return Bad("mitigate.plan_names", absl::StrCat("names \"", name, "\" twice"));
    }
  }
  return absl::OkStatus();
}

absl::Status NormalizeCanary(v1::Study* study) {
  v1::CanaryStudy* canary = study->mutable_canary();
  if (canary->max_flip_rate() == 0) canary->set_max_flip_rate(study->flip_limit());
  if (!(canary->max_flip_rate() > 0 && canary->max_flip_rate() < 1)) {
    return Bad("canary.max_flip_rate",
               absl::StrCat("must lie in (0, 1), got ", canary->max_flip_rate()));
  }
  if (canary->plan().empty()) canary->set_plan(TargetPlan(*study));
  PLUMB_RETURN_IF_ERROR(CheckPlan("canary.plan", canary->plan(), study->paper_quirks()));
  study->set_flip_limit(canary->max_flip_rate());
  study->set_target(canary->plan());
  return absl::OkStatus();
}

absl::Status NormalizeKind(v1::Study* study) {
  const bool quirks = study->paper_quirks();
  switch (study->kind_case()) {
    case v1::Study::kSweep:
      return CheckPlans("sweep.plans", study->sweep().plans(), true, quirks);
    case v1::Study::kDiagnose:
      NormalizeDiagnose(study->policy() == v1::POLICY_PAPER, study->mutable_diagnose());
      return absl::OkStatus();
    case v1::Study::kMitigate:
      return NormalizeMitigate(quirks, study->mutable_mitigate());
    case v1::Study::kCanary:
      return NormalizeCanary(study);
    case v1::Study::kCustom:
      return CheckPlans("custom.plans", study->custom().plans(), false, quirks);
    default:
      return Bad("kind", "is not set; set one of sweep, diagnose, mitigate, canary, custom");
  }
}

bool Quantizes(const Plan& plan) {
  return std::any_of(plan.rules().begin(), plan.rules().end(), [](const PlanRule& rule) {
    return !rule.format.key.is_fp() || !rule.format.value.is_fp();
  });
}

// What the headline speaks of where the user named nothing: of a sweep's own plans the first that
// quantizes, so that nothing runs that was not asked for.
std::string DefaultTarget(const v1::Study& study) {
  for (const std::string& text : study.sweep().plans()) {
    const auto plan = ParsePlan(text, {.paper_quirks = study.paper_quirks()});
    if (plan.ok() && Quantizes(*plan)) return text;
  }
  return absl::StrCat("int4.", kDeploymentSymmetryAndGranularity);
}

absl::Status NormalizeTarget(v1::Study* study) {
  if (study->has_custom() && study->target().empty()) return absl::OkStatus();  // concludes nothing
  if (study->target().empty()) study->set_target(DefaultTarget(*study));
  const bool quirks = study->paper_quirks();
  PLUMB_RETURN_IF_ERROR(CheckPlan("target", TargetPlan(*study), quirks));
  auto plan = ParsePlan(TargetPlan(*study), {.paper_quirks = quirks});
  if (Quantizes(*plan)) return absl::OkStatus();
  return Bad("target", absl::StrCat("\"", study->target(),
                                    "\" quantizes nothing, so there is nothing to measure"));
}

}  // namespace

absl::StatusOr<v1::Study> NormalizeStudy(const v1::Study& given) {
  v1::Study study = given;
  if (study.name().size() > kMaxNameBytes) {
    return Bad("name",
               absl::StrCat("has ", study.name().size(), " bytes; at most ", kMaxNameBytes));
  }
  if (study.model().size() < kMinDigestPrefix) {
    return Bad("model", "is empty; give a model's name or the start of its digest");
  }
  if (study.policy() == v1::POLICY_UNSPECIFIED) study.set_policy(v1::POLICY_PLUMBLINE);
  if (study.policy() != v1::POLICY_PLUMBLINE && study.policy() != v1::POLICY_PAPER) {
    return Bad("policy", absl::StrCat("must be plumbline or paper, got the number ",
                                      static_cast<int>(study.policy())));
  }
  PLUMB_RETURN_IF_ERROR(CheckPrompts(study));
  PLUMB_RETURN_IF_ERROR(NormalizeDecoding(&study));
  PLUMB_RETURN_IF_ERROR(NormalizeJudge(&study));
  PLUMB_RETURN_IF_ERROR(NormalizeLimits(&study));
  PLUMB_RETURN_IF_ERROR(NormalizeTarget(&study));
  PLUMB_RETURN_IF_ERROR(NormalizeKind(&study));
  return study;
}

}  // namespace plumbline
