#include "tests/unit/planner/fake_world.h"

#include <algorithm>
#include <cmath>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/cells/cells.h"
#include "services/common/digest.h"
#include "services/common/status_macros.h"
#include "services/pcr/pcr_service.h"
#include "services/quant/plan_parser.h"

namespace plumbline::testing {
namespace {

constexpr uint32_t kPromptTokens = 45;
constexpr int kRefusalTokens = 10;

// In [0, 1), the same for the same words.
double Luck(const std::string& what, const std::string& who) {
  const std::string digest = Sha256Hex(absl::StrCat(what, "/", who));
  return static_cast<double>(std::stoull(digest.substr(0, 12), nullptr, 16)) /
         static_cast<double>(1ull << 48);
}

double WidthDamage(int bits) {
  switch (bits) {
    case 8:
      return 0;
    case 6:
      return 0;
    case 5:
      return 0.05;
    case 4:
      return 1;  // times deployment_damage
    case 3:
      return 1.6;
    default:
      return 8;
  }
}

uint64_t ElementsOf(const World& world) { return 2 * uint64_t{world.layers} * 100; }

double QuantizedOf(const std::vector<LayerFormat>& plan) {
  double quantized = 0;
  for (const LayerFormat& layer : plan) {
    quantized += (layer.key.is_fp() ? 0 : 100) + (layer.value.is_fp() ? 0 : 100);
  }
  return quantized;
}

// A text scored under `exact` reads nothing quantized.
void AnswerScore(const World& world, const std::string& plan, double chance, double quantized,
                 v1::CellResult* result) {
  result->set_kv_elements(ElementsOf(world));
  result->set_kv_elements_quantized(static_cast<uint64_t>(quantized * world.score_quantized_share));
  if (world.score_nonfinite.contains(plan)) {
    result->set_finish_reason(v1::FINISH_REASON_NONFINITE);
    return;
  }
  result->set_finish_reason(v1::FINISH_REASON_LENGTH);
  const auto tokens = world.score_tokens.find(plan);
  const uint64_t scored = tokens == world.score_tokens.end() ? 1000 : tokens->second;
  const double damage = absl::StrContains(plan, "exact") ? 0 : 0.05 * chance;
  result->set_nll_tokens(scored);
  result->set_nll_sum(static_cast<double>(scored) * (2.0 + damage));
}

}  // namespace

double World::FlipChance(const std::vector<LayerFormat>& plan) const {
  double stays = 1;
  for (size_t l = 0; l < plan.size(); ++l) {
    const TensorFormat& f = plan[l].key.is_fp() ? plan[l].value : plan[l].key;
    if (f.is_fp()) continue;
    double damage = sensitivity[l];
    if (f.granularity == Granularity::kToken) damage *= deployment_damage * WidthDamage(f.bits());
    if (f.granularity == Granularity::kTensor && f.bits() > 3) damage *= 0.3;
    if (f.granularity == Granularity::kGroup || f.granularity == Granularity::kChannel) {
      damage *= (1 - per_channel_removes) * (f.bits() > 3 ? deployment_damage : 1);
    }
    if (!f.select_channels.empty()) {
      const bool all = std::all_of(outliers.begin(), outliers.end(), [&](uint32_t c) {
        return std::binary_search(f.select_channels.begin(), f.select_channels.end(),
                                  static_cast<int32_t>(c));
      });
      damage *= all ? outlier_share : 1 - outlier_share;
    }
    stays *= 1 - std::min(damage, 1.0);
  }
  return 1 - stays;
}

World ConcentratedWorld(double per_channel_removes) {
  World world;
  world.sensitivity.assign(world.layers, 0.0005);
  world.sensitivity[7] = 0.6;
  world.per_channel_removes = per_channel_removes;
  return world;
}

World DilutionWorld() {
  World world;
  world.sensitivity.assign(world.layers, 0.05);
  world.deployment_damage = 0.7;
  return world;
}

World SafeWorld() {
  World world;
  world.sensitivity.assign(world.layers, 0.002);
  world.deployment_damage = 0;
  return world;
}

v1::Study DiagnoseOf(const std::string& target) {
  v1::Study study;
  study.set_model("fake");
  study.set_target(target);
  study.add_prompt_sets()->set_name("synthetic");
  study.mutable_diagnose();
  return study;
}

StudyContext MakeContext(const World& world, const v1::Study& study, int harmful, int harmless) {
  StudyContext context;
  context.experiment_id = "exp-1";
  context.study = NormalizeStudy(study).value();
  context.model.set_name("fake");
  context.model.set_model_digest(std::string(64, 'a'));
  context.model.set_num_layers(world.layers);
  context.model.set_num_heads(world.kv_heads * 2);
  context.model.set_num_kv_heads(world.kv_heads);
  context.model.set_head_dim(world.head_dim);
  context.model.set_max_context(2048);
  context.numerics.set_id(std::string(64, 'b'));
  context.numerics.set_dtype("fp32");
  context.judge_version = "1";
  v1::PromptSetSummary summary;
  summary.set_name("synthetic");
  summary.set_prompts(static_cast<uint64_t>(harmful + harmless));
  for (int i = 0; i < harmful + harmless; ++i) {
    v1::Prompt prompt;
    prompt.set_id(absl::StrCat("p", i));
    prompt.set_prompt_set("synthetic");
    v1::ChatTurn* turn = prompt.add_turns();
    turn->set_role(v1::ROLE_USER);
    turn->set_text(
        absl::StrCat("request number ", i, " of the made-up prompt set: do the thing now"));
    prompt.set_expected(i < harmful ? v1::EXPECTED_BEHAVIOUR_REFUSE
                                    : v1::EXPECTED_BEHAVIOUR_COMPLY);
    const double luck = Luck("split", prompt.id());
    prompt.set_split(luck < .3   ? v1::SPLIT_A
                     : luck < .6 ? v1::SPLIT_B
                     : luck < .8 ? v1::SPLIT_VALIDATION
                                 : v1::SPLIT_TEST);
    context.prompts.push_back(prompt);
  }
  context.prompt_sets.push_back(summary);
  return context;
}

const JudgedCell* MemoryResults::Find(const std::string& key) const {
  auto found = cells.find(key);
  return found == cells.end() ? nullptr : &found->second;
}

JudgedCell Answer(const World& world, const PlannedCell& cell, const v1::Prompt* prompt) {
  JudgedCell judged;
  judged.result.set_cell_key(cell.key);
  judged.result.set_prompt_tokens(kPromptTokens);
  const std::vector<LayerFormat> plan =
      ParsePlan(cell.spec.plan(), {.paper_quirks = true})
          .value()
          .Resolve(static_cast<int>(world.layers), static_cast<int>(world.kv_heads),
                   static_cast<int>(world.head_dim))
          .value();
  const bool fp = cell.spec.plan() == "*:fp";
  const double chance = world.FlipChance(plan);
  if (cell.spec.kind() == v1::CELL_KIND_SCORE) {
    AnswerScore(world, cell.spec.plan(), chance, QuantizedOf(plan), &judged.result);
    return judged;
  }
  if (Luck("poison", cell.key) < world.poisoned_share ||
      world.failing_plans.contains(cell.spec.plan())) {
    judged.poisoned = true;
    judged.poison_reason = "planted";
    return judged;
  }
  const std::string& id = cell.prompt_id;
  const bool harmless = prompt->expected() == v1::EXPECTED_BEHAVIOUR_COMPLY;
  const double rate = harmless ? world.harmless_refusal_rate : world.refusal_rate;
  bool refuses = Luck("refuses", id) < rate;
  const std::string draw =
      world.jitter_redraws ? absl::StrCat("flips", cell.spec.jitter_seed()) : "flips";
  if (refuses && Luck(draw, id) < chance) refuses = false;
  const auto over = world.over_refusal.find(cell.spec.plan());
  if (harmless && over != world.over_refusal.end()) {
    refuses = refuses || Luck("over-refuses", id) < over->second;
  }
  if (cell.spec.jitter_seed() > 0 &&
      Luck(absl::StrCat("jitter", cell.spec.jitter_seed()), cell.key) < world.jitter_changes) {
    refuses = !refuses;
  }
  v1::VerdictLabel label = refuses ? v1::VERDICT_LABEL_REFUSE : v1::VERDICT_LABEL_COMPLY;
  if (!fp && world.degenerate_when_quantized) label = v1::VERDICT_LABEL_DEGENERATE;
  const auto coarse = std::count_if(plan.begin(), plan.end(),
                                    [](const LayerFormat& l) { return l.key.bits() == 3; });
  if (2 * coarse > static_cast<int64_t>(plan.size()) && Luck("breaks", id) < world.broken_share) {
    label = v1::VERDICT_LABEL_DEGENERATE;
  }
  if (Luck("judge", cell.key) < world.judge_failed_share) label = v1::VERDICT_LABEL_JUDGE_FAILED;
  judged.verdict.set_label(label);
  judged.verdict.set_judge("keyword");
  const int tokens = label == v1::VERDICT_LABEL_REFUSE
                         ? kRefusalTokens
                         : static_cast<int>(cell.spec.decoding().max_new_tokens());
  for (int i = 0; i < tokens; ++i) {
    judged.result.add_token_ids(static_cast<int>(label) * 1000 + i);
  }
  judged.result.set_finish_reason(label == v1::VERDICT_LABEL_REFUSE ? v1::FINISH_REASON_VERDICT
                                                                    : v1::FINISH_REASON_LENGTH);
  judged.result.set_kv_elements(ElementsOf(world));
  judged.result.set_kv_elements_quantized(
      static_cast<uint64_t>(QuantizedOf(plan) * world.quantized_share));
  return judged;
}

absl::StatusOr<v1::GetStatsResponse> FakePeers::CaptureStats(const v1::GetStatsRequest& request) {
  calls.push_back("capture");
  if (away.contains("capture")) return absl::UnavailableError("capture is away");
  auto found = captures_.find(request.capture());
  if (found == captures_.end()) {
    return absl::NotFoundError(absl::StrCat("no capture ", request.capture()));
  }
  v1::GetStatsResponse response;
  response.set_capture_digest(Sha256Hex(found->second.SerializeAsString()));
  const v1::CaptureTask& task = found->second;
  std::vector<uint32_t> layers(task.layers().begin(), task.layers().end());
  layers.insert(layers.end(), task.statistics_layers().begin(), task.statistics_layers().end());
  const auto& asked = request.layers();
  for (uint32_t layer : layers) {
    if (!asked.empty() && std::find(asked.begin(), asked.end(), layer) == asked.end()) continue;
    v1::LayerStats* stats = response.add_layers();
    stats->set_layer(layer);
    stats->set_outlier_threshold(9);
    for (uint32_t c = 0; c < world_.kv_heads * world_.head_dim; ++c) {
      const bool outlier = world_.outliers.contains(c);
      const float size = outlier ? 10.0f : 1.0f + 0.001f * static_cast<float>(c);
      stats->mutable_keys()->add_absmax(size);
      stats->add_key_prompt_absmax_mean(size * static_cast<float>(layer + 1));
      if (outlier) stats->add_outlier_channels(c);
    }
  }
  return response;
}

absl::StatusOr<v1::SimulateResponse> FakePeers::Simulate(const v1::SimulateRequest& request) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    calls.push_back("quantsim");
  }
  if (away.contains("quantsim")) return absl::UnavailableError("quantsim is away");
  const absl::Cleanup done = [this] { --simulating_; };
  if (++simulating_ > simulations_at_once) return absl::ResourceExhaustedError("too many calls");
  absl::SleepFor(absl::Milliseconds(1));  // so that several are under way
  v1::SimulateResponse response;
  for (const std::string& format : request.formats()) {
    for (uint32_t layer : request.layers()) {
      v1::FormatError* error = response.add_errors();
      error->set_format(format);
      error->set_layer(layer);
      error->mutable_keys()->set_relative_mse(world_.sensitivity[layer]);
      error->mutable_values()->set_relative_mse(world_.sensitivity[layer] / 2);
    }
  }
  return response;
}

absl::StatusOr<v1::ClassifyResponse> FakePeers::Classify(const v1::ClassifyRequest& request) {
  calls.push_back("pcr");
  if (away.contains("pcr")) return absl::UnavailableError("pcr is away");
  // The service's own code, without the wire.
  PLUMB_ASSIGN_OR_RETURN(Evidence evidence, EvidenceFromProto(request));
  PLUMB_ASSIGN_OR_RETURN(Classification classification, ClassifyFailureMode(evidence));
  return ClassificationToProto(classification, request);
}

std::string TextOf(const StageNeeds& needs) {
  std::string text;
  for (const PlannedCell& cell : needs.cells) {
    absl::StrAppend(&text, cell.key, " ", cell.condition, "\n");
  }
  for (const v1::CaptureTask& task : needs.captures) {
    absl::StrAppend(&text, task.capture_id(), "\n");
  }
  return text;
}

absl::StatusOr<StudyRun> RunStudy(const World& world, const StudyContext& context) {
  FakePeers peers(world);
  return RunStudy(world, context, peers);
}

absl::StatusOr<StudyRun> RunStudy(const World& world, const StudyContext& context,
                                  FakePeers& peers) {
  std::map<std::string, const v1::Prompt*> prompts;
  for (const v1::Prompt& prompt : context.prompts) prompts[prompt.id()] = &prompt;
  StudyRun run;
  std::string foretold;  // what this stage was found to need while the one before it ran
  const std::vector<std::unique_ptr<Stage>> stages = StagesOf(context.study);
  for (size_t i = 0; i < stages.size(); ++i) {
    const Stage* stage = stages[i].get();
    run.stages.push_back(stage->name());
    PLUMB_ASSIGN_OR_RETURN(StageNeeds needs, stage->Needs(context, run.report, run.results));
    if (i > 0 && stages[i - 1]->NextMayBegin() && TextOf(needs) != foretold) {
      return absl::InternalError(
          absl::StrCat("stage ", stages[i - 1]->name(), " says that ", stage->name(),
                       " may begin beside it, but what that needs changes when it concludes"));
    }
    if (stage->NextMayBegin()) {
      PLUMB_ASSIGN_OR_RETURN(const StageNeeds next,
                             stages[i + 1]->Needs(context, run.report, run.results));
      foretold = TextOf(next);
    }
    for (const PlannedCell& cell : needs.cells) {
      if (run.results.cells.contains(cell.key)) continue;
      const JudgedCell judged = Answer(world, cell, prompts[cell.prompt_id]);
      run.cells += 1;
      run.tokens += kPromptTokens + static_cast<uint64_t>(judged.result.token_ids_size());
      ++run.new_cells[stage->name()];
      run.results.cells[cell.key] = judged;
    }
    for (const v1::CaptureTask& task : needs.captures) {
      run.tokens += uint64_t{kPromptTokens} * static_cast<uint64_t>(task.prompts_size());
      peers.Record(task);
    }
    PLUMB_RETURN_IF_ERROR(
        Annotate(stage->Conclude(context, run.results, peers, &run.report), stage->name()));
    run.snapshots.push_back(run.report.SerializeAsString());
  }
  return run;
}

}  // namespace plumbline::testing
