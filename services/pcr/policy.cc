#include "services/pcr/policy.h"

#include <array>
#include <utility>

#include "absl/strings/str_cat.h"

namespace plumbline {
namespace {

constexpr std::array<std::pair<FailureMode, absl::string_view>, 7> kModeNames = {{
    {FailureMode::kUndetermined, "undetermined"},
    {FailureMode::kNoCollapse, "no-collapse"},
    {FailureMode::kHyperVulnerable, "hyper-vulnerable"},
    {FailureMode::kMultiLayerDilution, "multi-layer-dilution"},
    {FailureMode::kOutlierAsSafety, "outlier-as-safety"},
    {FailureMode::kMixed, "mixed"},
    {FailureMode::kOutlierCrushesSafety, "outlier-crushes-safety"},
}};

PolicyRules PaperRules() {
  PolicyRules rules;
  rules.critical_includes_rate = true;
  rules.test_layers = false;
  rules.mode_mass = 0;
  rules.min_ratio_flips = 1;
  rules.min_refusals = 20;
  return rules;
}

}  // namespace

const PolicyRules& RulesOf(Policy policy) {
  static const PolicyRules kPlumblineRules;
  static const PolicyRules kPaperRules = PaperRules();
  return policy == Policy::kPaper ? kPaperRules : kPlumblineRules;
}

absl::string_view PolicyName(Policy policy) {
  return policy == Policy::kPaper ? "paper" : "plumbline";
}

std::string PolicyVersion(Policy policy) { return absl::StrCat(PolicyName(policy), "/3"); }

absl::StatusOr<Policy> ParsePolicy(absl::string_view name) {
  if (name == "plumbline") return Policy::kPlumbline;
  if (name == "paper") return Policy::kPaper;
  return absl::InvalidArgumentError(
      absl::StrCat("policy must be plumbline or paper, got \"", name, "\""));
}

absl::string_view FailureModeName(FailureMode mode) {
  for (const auto& [value, name] : kModeNames) {
    if (value == mode) return name;
  }
  return "undetermined";
}

absl::StatusOr<FailureMode> ParseFailureMode(absl::string_view name) {
  std::string known;
  for (const auto& [value, text] : kModeNames) {
    if (text == name) return value;
    absl::StrAppend(&known, known.empty() ? "" : ", ", text);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("unknown failure mode \"", name, "\"; one of: ", known));
}

absl::string_view AttentionPatternName(AttentionPattern pattern) {
  switch (pattern) {
    case AttentionPattern::kConcentrated:
      return "concentrated";
    case AttentionPattern::kDistributedEarly:
      return "distributed-early";
    case AttentionPattern::kUltraDistributed:
      return "ultra-distributed";
    case AttentionPattern::kNone:
      break;
  }
  return "none";
}

AttentionPattern PatternOf(int64_t layers) {
  if (layers <= 0) return AttentionPattern::kNone;
  if (layers == 1) return AttentionPattern::kConcentrated;
  return layers <= 4 ? AttentionPattern::kDistributedEarly : AttentionPattern::kUltraDistributed;
}

FailureMode ModeByRates(const RateFindings& findings, const PolicyRules& rules) {
  if (findings.every_layer_critical) return FailureMode::kHyperVulnerable;
  if (findings.dilution) return FailureMode::kMultiLayerDilution;
  if (findings.pcr < rules.pcr_low) return FailureMode::kOutlierAsSafety;
  if (findings.pcr <= rules.pcr_high) return FailureMode::kMixed;
  return FailureMode::kOutlierCrushesSafety;
}

}  // namespace plumbline
