#include "services/cli/study_flags.h"

#include <cstdio>
#include <set>

#include "absl/strings/str_cat.h"
#include "services/cli/flag_checks.h"
#include "services/cli/install_layout.h"
#include "services/cli/prompt_sources.h"
#include "services/cli/trained_on.h"
#include "services/common/files.h"
#include "services/common/status_macros.h"
#include "services/engine/model_bundle.h"

namespace plumbline {
namespace {

constexpr int64_t kMaxUtilityTextBytes = 8 << 20;
constexpr char kBuiltinUtilityText[] = "data/text/utility.txt";
constexpr char kNoUtilityText[] = "none";

// A bundle folder stands for the model in it; anything else is a name or digest.
absl::StatusOr<std::string> ModelReference(const std::string& model, bool raw) {
  if (!FileExists(JoinPath(model, "manifest.json"))) {
    if (DirectoryExists(model)) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", model,
                       "' holds no manifest.json: make a bundle with `plumb models "
                       "import ",
                       model, " --out DIR`"));
    }
    return model;
  }
  PLUMB_ASSIGN_OR_RETURN(const BundleManifest manifest, OpenBundle(model, /*digests=*/false));
  if (!raw && !manifest.has_chat_format()) return NeedsRaw(manifest.name);
  return manifest.model_digest;
}

}  // namespace

void StudyFlags::Register(CLI::App* app) {
  session.Register(app);
  session.RegisterWorkerFlags(app);
  app->add_option("--model", model, "bundle folder, or a model's name or digest at the coordinator")
      ->required();
  app->add_option("--prompts", prompts,
                  "prompt set: a name, a file (csv, jsonl, txt) or a folder; may be repeated "
                  "(default: the built-in set)");
  app->add_option("--exclude", exclude_files,
                  "file of prompt hashes that take no part, besides the bundle's own list of what "
                  "the model was trained on");
  app->add_flag(
      "--include-trained-on", include_trained_on,
      "prompts take part although the bundle lists them as trained on; the report says so");
  app->add_option("--policy", policy, "plumbline, or paper for the published rules")
      ->check(CLI::IsMember({"plumbline", "paper"}))
      ->capture_default_str();
  app->add_option("--max-new-tokens", max_new_tokens, "length of an answer (default 48)")
      ->check(CLI::Range(1, 4096));
  app->add_option("--max-prompts", max_prompts, "a seeded sample of so many prompts (default: all)")
      ->check(CLI::NonNegativeNumber);
  app->add_option("--temperature", temperature, "0 = greedy")->check(CLI::Range(0.0, 100.0));
  app->add_option("--top-p", top_p, "nucleus, with --temperature")->check(CLI::Range(0.0, 1.0));
  app->add_option("--seed", seed, "seed of everything that is drawn")
      ->check(CLI::NonNegativeNumber);
  app->add_option("--judge", judge, "who gives verdicts (default keyword)");
  app->add_option("--system", system_prompt, "system prompt of every conversation");
  app->add_flag("--full-answers", run_to_the_end, "no early stop once the verdict is decided");
  app->add_flag(
      "--raw", raw,
      "prompts as they are, without the chat format: for base models; one user turn each");
  app->add_flag("--parse-special", parse_special,
                "special-token look-alikes in prompts become special tokens");
  app->add_flag("--paper-quirks", paper_quirks,
                "allow formats that the paper's code has by accident");
  app->add_option("--name", name, "a name for the study");
  app->add_option(
      "--request-id", request_id,
      "the same id with the same study is the same experiment (default: the study's own "
      "digest, so that a repeated command goes on)");
  app->add_option("--out", out, "folder for the report (default: DATA/reports/ID)");
  app->add_flag(
      "--wait-for-model", wait_for_model,
      "create the study although the workers of the running cluster have other models only; "
      "it starts when one has this one");
  app->add_flag("--detach", detach, "with --coordinator: start it and return");
}

void StudyFlags::RegisterTarget(CLI::App* app, const std::string& help) {
  app->add_option("--target", target, help);
}

void StudyFlags::RegisterFlipLimit(CLI::App* app, const std::string& help) {
  app->add_option("--flip-limit", flip_limit, help)->check(FlipRateCheck());
}

void StudyFlags::RegisterReplicas(CLI::App* app) {
  app->add_option("--jitter-replicas", jitter_replicas,
                  "replicas that measure numeric noise (default 2; policy paper: none)")
      ->check(CLI::Range(1, 16));
}

void StudyFlags::RegisterUtilityText(CLI::App* app) {
  app->add_option("--utility-text", utility_text_file,
                  "text whose perplexity guards recommended plans (default: a built-in one; none "
                  "leaves it out)");
}

absl::StatusOr<v1::Study> StudyFlags::Build() const {
  PLUMB_RETURN_IF_ERROR(CheckSampling(temperature, top_p));
  if (detach && !out.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--out '", out,
                     "': --detach returns before there is a report: leave --out out, and later "
                     "run `plumb watch ID --out '",
                     out, "'`"));
  }
  v1::Study study;
  study.set_name(name);
  PLUMB_ASSIGN_OR_RETURN(*study.mutable_model(), ModelReference(model, raw));
  study.set_policy(policy == "paper" ? v1::POLICY_PAPER : v1::POLICY_PLUMBLINE);
  study.set_target(target);
  study.set_judge(judge);
  study.set_system_prompt(system_prompt);
  study.set_seed(seed);
  study.set_jitter_replicas(jitter_replicas);
  study.set_flip_limit(flip_limit);
  study.set_paper_quirks(paper_quirks);
  study.set_max_prompts(max_prompts);
  study.set_run_to_the_end(run_to_the_end);
  v1::DecodingSettings* decoding = study.mutable_decoding();
  decoding->set_max_new_tokens(max_new_tokens);
  decoding->set_raw(raw);
  decoding->set_parse_special(parse_special);
  decoding->mutable_sampling()->set_temperature(temperature);
  decoding->mutable_sampling()->set_top_p(top_p);
  decoding->mutable_sampling()->set_seed(seed);
  const std::vector<std::string> names =
      prompts.empty() ? std::vector<std::string>{kBuiltinPrompts} : prompts;
  PLUMB_ASSIGN_OR_RETURN(ResolvedPrompts resolved,
                         ResolvePrompts(names, session.data_dir, !session.coordinator.empty()));
  for (v1::PromptSetRef& set : resolved.sets) *study.add_prompt_sets() = std::move(set);
  PLUMB_ASSIGN_OR_RETURN(const TextHashes trained_on, ReadTrainedOn(model));
  const std::string note = TrainedOnNote(trained_on, include_trained_on, resolved.text_hashes);
  if (!note.empty()) fprintf(stderr, "%s\n", note.c_str());
  study.set_include_trained_on(include_trained_on);
  std::set<std::string> excluded;
  if (!include_trained_on) {
    excluded.insert(trained_on.begin(), trained_on.end());
  }
  for (const std::string& file : exclude_files) {
    PLUMB_ASSIGN_OR_RETURN(const auto hashes, LoadTextHashList(file));
    excluded.insert(hashes.begin(), hashes.end());
  }
  for (const std::string& hash : excluded) study.add_exclude_prompt_sha256(hash);
  return study;
}

absl::Status StudyFlags::AddUtilityText(v1::Study* study) const {
  if (utility_text_file == kNoUtilityText) return absl::OkStatus();
  std::string file = utility_text_file;
  if (file.empty()) {
    if (!study->has_diagnose() && !study->has_mitigate()) return absl::OkStatus();
    const absl::StatusOr<std::string> builtin = FindShared(kBuiltinUtilityText);
    if (!builtin.ok()) return absl::OkStatus();  // the report warns of the missing guard
    file = *builtin;
  }
  PLUMB_ASSIGN_OR_RETURN(*study->mutable_utility_text(), ReadFile(file, kMaxUtilityTextBytes));
  return absl::OkStatus();
}

}  // namespace plumbline
