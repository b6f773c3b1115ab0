#include "services/report/tables.h"

#include <google/protobuf/util/time_util.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "services/common/digest.h"
#include "services/common/figures.h"
#include "services/report/format.h"
#include "services/report/notes.h"
#include "services/report/sweep.h"

namespace plumbline {
namespace {

std::string PText(bool has, double p) { return has ? PValueText(p) : "-"; }

std::string FloorText(const v1::ConditionResult& condition) {
  if (!condition.floor_measured()) return "-";
  return absl::StrCat("flips ", absl::StrJoin(condition.replica_flips(), ", "), " of ",
                      condition.floor_prompts(),
                      condition.above_floor() ? "" : " (not distinguishable)");
}

constexpr char kFirstToken[] = "first-token KL, nats";

std::string FirstTokenText(const v1::ConditionResult& condition) {
  return condition.first_token_kl_prompts() > 0 ? NumberText(condition.first_token_kl()) : "-";
}

const std::vector<std::string>& ConditionColumns() {
  static const auto* const columns = new std::vector<std::string>{
      "condition", "flips",        "flip rate [95%]", "phase",        "degenerate",  "not finite",
      "reverse",   "set aside",    "net shift p",     "p against 5%", "noise floor", "KV quantized",
      "KV memory", "first change", kFirstToken,       "plan",         "warnings"};
  return *columns;
}

std::string Share(uint64_t part, uint64_t whole) { return absl::StrCat(part, "/", whole); }

// A phase of flips says nothing about answers that are no answers. A rate without a phase is that
// of a format which was hardly used.
std::string PhaseCell(const v1::ConditionResult& c) {
  if (c.unmeasured()) return "unmeasured";
  const uint64_t broken = c.degenerate() + c.nonfinite();
  if (broken * 2 > c.baseline_refusals()) {
    return c.degenerate() >= c.nonfinite() ? "mostly degenerate" : "mostly not finite";
  }
  const bool hardly = c.phase() == v1::PHASE_UNSPECIFIED && c.flip_rate().defined();
  return hardly ? "hardly quantized" : PhaseText(c.phase());
}

std::vector<std::string> ConditionRow(const v1::Report& report, const v1::ConditionResult& c) {
  if (c.cells() == 0) {
    std::vector<std::string> row(ConditionColumns().size(), "-");
    row[0] = c.name();
    row[1] = "not run";
    row[row.size() - 2] = c.plan();
    row.back() = "";
    return row;
  }
  return {c.name(),
          Share(c.flips(), c.baseline_refusals()),
          IntervalText(c.flip_rate(), FlipLimits(report)),
          PhaseCell(c),
          absl::StrCat(c.degenerate()),
          c.nonfinite() > 0 ? absl::StrCat(c.nonfinite()) : "-",
          absl::StrCat(c.reverse_flips()),
          absl::StrCat(c.judge_failed() + c.poisoned()),
          PText(c.has_mcnemar(), c.holm_p()),
          PText(c.has_binomial(), c.binomial_p()),
          FloorText(c),
          PercentText(c.quantized_share(), {kQuantizedEnough}),
          RatioText(c.memory_vs_fp()),
          c.median_first_divergence() < 0 ? "-" : NumberText(c.median_first_divergence()),
          FirstTokenText(c),
          c.plan(),
          absl::StrJoin(c.warnings(), "; ")};
}

std::string PlanVerdict(const v1::PlanResult& plan) {
  if (!WasTried(plan)) return "not tried";
  if (plan.recommended()) return "recommended";
  if (plan.winner()) return "winner, fails";
  return plan.finalist() ? "rival" : "not a finalist";
}

std::string PlanNote(const v1::PlanResult& plan) {
  const std::string& note = plan.not_recommended_because();
  return plan.recommended() || note == PlanVerdict(plan) ? "" : note;
}

}  // namespace

Table ConditionTable(const std::string& name, const std::string& caption, const v1::Report& report,
                     const google::protobuf::RepeatedPtrField<v1::ConditionResult>& conditions) {
  Table table{name, caption, ConditionColumns(), {}};
  table.note_column = static_cast<int>(table.columns.size()) - 1;
  if (std::any_of(conditions.begin(), conditions.end(),
                  [](const auto& condition) { return condition.has_binomial(); })) {
    table.caption += "; p against 5%: exact binomial test, unadjusted";
  }
  for (const v1::ConditionResult& condition : conditions) {
    table.rows.push_back(ConditionRow(report, condition));
  }
  return table;
}

Table SweepTable(const v1::Report& report) {
  v1::Report ordered;
  for (const v1::ConditionResult& one : OrderedSweep(report)) *ordered.add_sweep() = one;
  return ConditionTable(
      "sweep",
      "Whole prompt sets under each format. Net shift: McNemar's test of flips "
      "against reverse flips, Holm-adjusted; a large p says that the two balance, "
      "not that there are none",
      report, ordered.sweep());
}

Table LayerTable(const v1::Report& report) {
  Table table{"layers",
              "Each layer quantized alone",
              {"layer", "screen", "screen and further", "flip rate [95%]", "p against 5%",
               "p (Holm)", "critical"},
              {}};
  std::vector<double> limits = FlipLimits(report);
  limits.push_back(kCriticalFlips);
  for (const v1::LayerResult& layer : report.layers()) {
    const bool confirmed = layer.confirmed().cells() > 0;
    const v1::ConditionResult& shown = confirmed ? layer.confirmed() : layer.screen();
    table.rows.push_back({absl::StrCat(layer.layer()),
                          layer.screen().cells() > 0
                              ? Share(layer.screen().flips(), layer.screen().baseline_refusals())
                              : "not run",
                          confirmed ? Share(shown.flips(), shown.baseline_refusals()) : "not run",
                          IntervalText(shown.flip_rate(), limits),
                          PText(shown.has_binomial(), shown.binomial_p()),
                          confirmed ? PValueText(layer.holm_p()) : "-",
                          layer.critical()  ? "yes"
                          : layer.unclear() ? "unclear"
                                            : ""});
  }
  return table;
}

Table FloorTable(const v1::Report& report) {
  Table table{"floor",
              "Jitter replicas: numeric noise on prompts that the baseline refuses",
              {"condition", "flips undisturbed", "flips of each replica", "verdicts that change",
               "share", "prompts", "plan"},
              {}};
  for (const v1::ConditionResult& c : report.floor().conditions()) {
    const bool ran = c.floor_measured() && c.floor_cells() > 0;
    table.rows.push_back({c.name(), ran ? Share(c.floor_flips(), c.floor_prompts()) : "not run",
                          ran ? absl::StrJoin(c.replica_flips(), ", ") : "-",
                          ran ? Share(c.floor_changes(), c.floor_cells()) : "not run",
                          ran ? PercentText(static_cast<double>(c.floor_changes()) /
                                            static_cast<double>(c.floor_cells()))
                              : "-",
                          c.prompts(), c.plan()});
  }
  return table;
}

Table PlanTable(const v1::Report& report) {
  Table table{"plans",
              "Plans compared",
              {"#", "name", "verdict", absl::StrCat(PlanPrompts(report, false), " flips"),
               absl::StrCat(PlanPrompts(report, true), " flips"), "recovery [95%]", "on",
               "recovery (paper)", "KV memory", "perplexity", "harmless refused", kFirstToken,
               "plan", "why not"},
              {}};
  table.note_column = static_cast<int>(table.columns.size()) - 1;
  int number = 0;
  for (const v1::PlanResult& plan : report.plans()) {
    // The numbers are those of the chart, which leaves out plans without a recovery.
    const bool defined = plan.recovery().defined();
    const auto flips = [](const v1::ConditionResult& c) {
      return c.cells() > 0 ? Share(c.flips(), c.baseline_refusals()) : std::string("not run");
    };
    const v1::UtilityResult& utility = plan.utility();
    table.rows.push_back(
        {defined ? absl::StrCat(++number) : "", plan.name(), PlanVerdict(plan),
         flips(plan.validation()), flips(plan.test()), IntervalText(plan.recovery(), {0}),
         defined ? PlanPrompts(report, plan.recovery_on_test()) : "-",
         // A ratio to two or three flips is noise, however it is defined.
         defined && plan.recovery_paper_defined() ? PercentText(plan.recovery_paper())
                                                  : "not defined",
         RatioText(plan.memory_vs_target()),
         utility.has_perplexity() ? RatioText(utility.perplexity_ratio(), {kPerplexityLimit}) : "-",
         utility.harmless() > 0 ? Share(utility.harmless_refused(), utility.harmless()) : "not run",
         FirstTokenText(plan.test().cells() > 0 ? plan.test() : plan.validation()), plan.plan(),
         PlanNote(plan)});
  }
  return table;
}

Table KvErrorTable(const v1::Report& report) {
  Table table{"kv_errors",
              "KV error predicted from a capture",
              {"format", "layer", "keys rel. MSE", "keys without outliers", "values rel. MSE",
               "attention scores", "attention output"},
              {}};
  for (const v1::FormatError& e : report.kv_errors()) {
    table.rows.push_back({e.format(), absl::StrCat(e.layer()), NumberText(e.keys().relative_mse()),
                          NumberText(e.keys().relative_mse_without_outliers()),
                          NumberText(e.values().relative_mse()),
                          NumberText(e.attention_score_relative_mse()),
                          NumberText(e.attention_output_relative_mse())});
  }
  return table;
}

Table KeyOutlierTable(const v1::Report& report) {
  Table table{"key_outliers",
              "Largest key channel of each layer",
              {"layer", "largest |K|", "median |K|", "largest over median", "largest channel",
               "outlier channels"},
              {}};
  for (const v1::KeyOutliers& keys : report.channels().key_outliers()) {
    table.rows.push_back(
        {absl::StrCat(keys.layer()), NumberText(keys.largest()), NumberText(keys.median()),
         keys.median() > 0 ? NumberText(keys.largest_over_median()) : "not defined",
         absl::StrCat(keys.largest_channel()), absl::StrJoin(keys.outlier_channels(), " ")});
  }
  return table;
}

Table PromptTable(const v1::Report& report) {
  Table table{"prompts",
              "Prompt sets",
              {"set", "prompts", "excluded", "repeated texts", "A", "B", "validation", "test",
               "refused", "of them harmless", "complied", "degenerate", "SHA-256"},
              {}};
  const auto split = [&report](uint64_t prompts) {
    return HasSplits(report) ? absl::StrCat(prompts) : "-";
  };
  for (const v1::PromptSetSummary& s : report.provenance().prompt_sets()) {
    table.rows.push_back(
        {s.partial() ? absl::StrCat(s.name(), " (partial)") : s.name(), absl::StrCat(s.prompts()),
         absl::StrCat(s.excluded()), absl::StrCat(s.repeated_texts()), split(s.split_a()),
         split(s.split_b()), split(s.split_validation()), split(s.split_test()),
         absl::StrCat(s.baseline_refusals()), absl::StrCat(s.baseline_harmless_refused()),
         absl::StrCat(s.baseline_complies()), absl::StrCat(s.baseline_degenerate()), s.sha256()});
  }
  return table;
}

// Empty where no list of trained-on prompts took part.
std::string TrainedOnText(const v1::Report& report) {
  if (report.study().include_trained_on()) return "take part, as was asked for";
  if (report.study().exclude_prompt_sha256().empty()) return "";
  uint64_t excluded = 0;
  for (const v1::PromptSetSummary& set : report.provenance().prompt_sets()) {
    excluded += set.excluded();
  }
  return absl::StrCat(excluded, " left out; the list names ",
                      CountText(report.study().exclude_prompt_sha256_size(), "text"));
}

Table ProvenanceTable(const v1::Report& report) {
  const v1::Provenance& p = report.provenance();
  Table table{"provenance", "Study, model and run", {"what", "value"}, {}};
  const auto add = [&table](const std::string& what, const std::string& value) {
    if (!value.empty() && value != "0") table.rows.push_back({what, value});
  };
  const v1::Study& study = report.study();
  add("experiment", report.experiment_id());
  add("model", absl::StrCat(p.model().name(), " (", p.model().family(), ", ",
                            CountText(p.model().num_layers(), "layer"), ")"));
  add("model digest", p.model().model_digest());
  add("model source", p.model().source());
  add("numerics class", p.numerics().text());
  add("numerics class id", p.numerics().id());
  add("decoding",
      absl::StrCat("at most ", CountText(study.decoding().max_new_tokens(), "token"), ", ",
                   study.decoding().sampling().temperature() == 0
                       ? std::string("greedy")
                       : absl::StrCat("temperature ", study.decoding().sampling().temperature()),
                   study.decoding().stop_on_verdict().empty()
                       ? ", to the end"
                       : ", stopped once the verdict is decided"));
  add("special tokens in prompts",
      study.decoding().parse_special() ? "become special tokens" : "stay text");
  add("system prompt", study.system_prompt().empty()
                           ? "the model's own default"
                           : absl::StrCat("given, SHA-256 ", Sha256Hex(study.system_prompt())));
  add("utility text", study.utility_text().empty()
                          ? std::string()
                          : absl::StrCat("SHA-256 ", Sha256Hex(study.utility_text())));
  add("prompts that the model was trained on", TrainedOnText(report));
  add("judge", absl::StrCat(p.judge(), " ", p.judge_version()));
  add("policy", p.policy_version());
  add("study digest", p.study_digest());
  add("config digest", p.config_digest());
  add("coordinator version", p.coordinator_version());
  std::vector<std::string> workers;
  for (const v1::WorkerSummary& worker : p.workers()) {
    workers.push_back(absl::StrCat(worker.worker_id(), " (", CountText(worker.cells(), "cell"),
                                   ", version ", worker.version(),
                                   worker.machine().empty() ? "" : ", ", worker.machine(), ")"));
  }
  add("workers", absl::StrJoin(workers, "; "));
  add("cells run", absl::StrCat(p.cells_run()));
  add("cells shared with earlier studies", absl::StrCat(p.cells_shared()));
  add("tokens generated", absl::StrCat(p.tokens_generated()));
  add("cells audited on another worker", absl::StrCat(p.audited_cells()));
  add("invariance violations", absl::StrCat(p.invariance_violations()));
  using google::protobuf::util::TimeUtil;
  if (p.has_started()) add("started", TimeUtil::ToString(p.started()));
  if (p.has_ended()) add("ended", TimeUtil::ToString(p.ended()));
  add("capture", report.channels().capture_digest());
  add("capture of the KV errors", report.kv_capture_digest());
  return table;
}

std::vector<Table> ReportTables(const v1::Report& report) {
  std::vector<Table> tables = {
      SweepTable(report),
      LayerTable(report),
      ConditionTable("combined", "Layers together", report, report.combined()),
      ConditionTable("channels", absl::StrCat("Channels at layer ", report.channels().layer()),
                     report, report.channels().conditions()),
      PlanTable(report),
      FloorTable(report),
      KvErrorTable(report),
      KeyOutlierTable(report),
      PromptTable(report),
      ProvenanceTable(report)};
  std::erase_if(tables, [](const Table& table) { return table.rows.empty(); });
  return tables;
}

}  // namespace plumbline
