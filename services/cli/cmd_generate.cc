#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "plumbline/v1/generation.grpc.pb.h"
#include "services/cli/commands.h"
#include "services/cli/flag_checks.h"
#include "services/cli/forced_answers.h"
#include "services/cli/local_worker.h"
#include "services/cli/progress.h"
#include "services/cli/prompt_sources.h"
#include "services/cli/session.h"
#include "services/common/figures.h"
#include "services/common/files.h"
#include "services/common/status_macros.h"
#include "services/engine/model_bundle.h"
#include "services/judge/keyword_judge.h"
#include "services/prompts/prompt_library.h"
#include "services/rpc/client.h"
#include "services/rpc/shutdown_signal.h"

namespace plumbline {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kSequencesPerCall = 1024;
constexpr absl::Duration kConnectPatience = absl::Seconds(10);
constexpr absl::Duration kLocalConnectPatience = absl::Seconds(60);
// A worker queues so many sequences for each one it runs at once.
constexpr size_t kQueuedPerRunning = 16;

struct GenerateFlags {
  LocalWorkerOptions worker;
  std::string model, prompts_file, force_file, worker_address, system_prompt;
  std::vector<std::string> plans;
  uint32_t max_new_tokens = 256;
  uint64_t seed = 0, jitter_seed = 0;
  double temperature = 0, top_p = 0;  // top_p 0: the default, 1
  bool json = false, raw = false, logits = false, parse_special = false, paper_quirks = false;
  bool ignore_eos = false, stop_on_verdict = false;
};

const char* FinishWord(v1::FinishReason reason) {
  switch (reason) {
    case v1::FINISH_REASON_EOS:
      return "eos";
    case v1::FINISH_REASON_LENGTH:
      return "length";
    case v1::FINISH_REASON_VERDICT:
      return "verdict";
    default:
      return "nonfinite";
  }
}

void PrintText(const v1::GenerateResponse& response, const std::string& plan) {
  const v1::CellResult& result = response.result();
  printf("== %s  %s  (%s)\n%s\n", response.prompt_id().c_str(), plan.c_str(),
         FinishWord(result.finish_reason()), result.text().c_str());
  for (int i = 0; i < response.steps_size(); ++i) {
    const v1::StepTrace& step = response.steps(i);
    printf("step %d  top %d, then %d  gap %g  regret %g\n", i, step.top1(), step.top2(),
           step.top1_logit() - step.top2_logit(), step.regret());
  }
  if (!response.logit_digest().empty()) printf("logits %s\n", response.logit_digest().c_str());
}

void PrintJson(const v1::GenerateResponse& response, const std::string& plan) {
  const v1::CellResult& result = response.result();
  Json row;
  row["prompt_id"] = response.prompt_id();
  row["kv"] = plan;
  row["token_ids"] = std::vector<int32_t>(result.token_ids().begin(), result.token_ids().end());
  row["text"] = result.text();
  row["finish_reason"] = FinishWord(result.finish_reason());
  row["prompt_tokens"] = result.prompt_tokens();
  row["kv_quantized_share"] = result.kv_elements() == 0
                                  ? 0.0
                                  : static_cast<double>(result.kv_elements_quantized()) /
                                        static_cast<double>(result.kv_elements());
  if (response.steps_size() > 0) {
    Json steps = Json::array();
    for (const v1::StepTrace& step : response.steps()) {
      steps.push_back({{"top", {step.top1(), step.top2()}},
                       {"gap", step.top1_logit() - step.top2_logit()},
                       {"logit", step.top1_logit()},
                       {"regret", step.regret()}});
    }
    row["steps"] = steps;
  }
  if (!response.logit_digest().empty()) row["logit_digest"] = response.logit_digest();
  printf("%s\n", row.dump(-1, ' ', false, Json::error_handler_t::replace).c_str());
}

void PrintAnswer(const v1::GenerateResponse& response, const std::string& plan, bool as_json) {
  as_json ? PrintJson(response, plan) : PrintText(response, plan);
  fflush(stdout);
}

absl::StatusOr<v1::GenerateRequest> BaseRequest(const GenerateFlags& flags,
                                                const std::vector<std::string>& plans) {
  v1::GenerateRequest request;
  request.set_model(flags.model);
  if (FileExists(JoinPath(flags.model, "manifest.json"))) {
    PLUMB_ASSIGN_OR_RETURN(const BundleManifest manifest, OpenBundle(flags.model, false));
    request.set_model(manifest.model_digest);
  }
  for (const std::string& plan : plans) request.add_plans(plan);
  v1::DecodingSettings* decoding = request.mutable_decoding();
  decoding->set_max_new_tokens(flags.max_new_tokens);
  decoding->set_raw(flags.raw);
  decoding->set_parse_special(flags.parse_special);
  if (flags.stop_on_verdict) {
    PLUMB_ASSIGN_OR_RETURN(const auto judge, KeywordJudge::Create({}));
    decoding->set_stop_on_verdict(judge->version());
  }
  decoding->mutable_sampling()->set_temperature(flags.temperature);
  decoding->mutable_sampling()->set_top_p(flags.top_p == 0 ? 1 : flags.top_p);
  decoding->mutable_sampling()->set_seed(flags.seed);
  request.set_want_steps(flags.logits || !flags.force_file.empty());
  request.set_want_logit_digest(flags.logits);
  request.set_jitter_seed(flags.jitter_seed);
  request.set_paper_quirks(flags.paper_quirks);
  request.set_ignore_eos(flags.ignore_eos);
  return request;
}

void AddPrompt(const GenerateFlags& flags, const Prompt& prompt, const ForcedAnswers& forced,
               v1::GenerateRequest* request) {
  v1::Prompt given = PromptToProto(prompt);
  v1::Prompt* added = request->add_prompts();
  *added = given;
  if (!flags.system_prompt.empty() && given.turns(0).role() != v1::ROLE_SYSTEM) {
    added->clear_turns();
    v1::ChatTurn* system = added->add_turns();
    system->set_role(v1::ROLE_SYSTEM);
    system->set_text(flags.system_prompt);
    added->mutable_turns()->MergeFrom(given.turns());
  }
  if (auto it = forced.find(prompt.id); it != forced.end()) {
    v1::ForcedAnswer* answer = request->add_forced();
    answer->set_prompt_id(prompt.id);
    answer->mutable_token_ids()->Add(it->second.begin(), it->second.end());
  }
}

absl::Status RunBatch(RpcClient<v1::Generation>& client, const v1::GenerateRequest& request,
                      const std::vector<std::string>& plans, bool as_json, size_t* done) {
  grpc::ClientContext context;  // as long as it takes
  auto stream = client.stub().Generate(&context, request);
  v1::GenerateResponse response;
  while (stream->Read(&response)) {
    PrintAnswer(response, plans[response.plan_index()], as_json);
    ++*done;
    if (OutputBroken()) context.TryCancel();
  }
  const grpc::Status status = stream->Finish();
  return OutputBroken() ? absl::OkStatus() : FromGrpcStatus(status);
}

absl::Status Generate(const GenerateFlags& flags) {
  const std::vector<std::string> plans =
      flags.plans.empty() ? std::vector<std::string>{"*:fp"} : flags.plans;
  const bool own_worker_asked =
      !flags.worker.dtype.empty() || !flags.worker.device.empty() || flags.worker.threads != 0;
  if (!flags.worker_address.empty() && own_worker_asked) {
    return absl::InvalidArgumentError(
        "--dtype, --device and --threads are for the worker that this command starts; those of "
        "--worker are set where it runs: leave them out");
  }
  if (flags.stop_on_verdict && !flags.force_file.empty()) {
    return absl::InvalidArgumentError(
        "--stop-on-verdict ends the model's own answers, and those of --force are fed whole: leave "
        "one of them out");
  }
  PLUMB_RETURN_IF_ERROR(CheckSampling(flags.temperature, flags.top_p));
  PLUMB_ASSIGN_OR_RETURN(const auto forced, ReadForced(flags.force_file));
  PLUMB_ASSIGN_OR_RETURN(const PromptSet set,
                         ResolvePromptSet(flags.prompts_file, PromptRoots("plumbline-data")));
  if (!flags.force_file.empty()) {
    PLUMB_RETURN_IF_ERROR(CheckForced(forced, set, flags.force_file));
  }
  PLUMB_ASSIGN_OR_RETURN(const v1::GenerateRequest base, BaseRequest(flags, plans));
  std::unique_ptr<LocalWorker> worker;
  v1::Endpoint endpoint;
  endpoint.set_address(flags.worker_address);
  if (flags.worker_address.empty()) {
    PLUMB_RETURN_IF_ERROR(CheckIsBundle(flags.model, "--worker"));
    LocalWorkerOptions options = flags.worker;
    options.model_dir = flags.model;
    PLUMB_ASSIGN_OR_RETURN(worker, LocalWorker::Start(options));
    endpoint.set_address(worker->address());
  }
  PLUMB_ASSIGN_OR_RETURN(auto client, RpcClient<v1::Generation>::Create(endpoint));
  // On a busy machine the first handshake may take its time or fail. The local worker serves
  // already.
  const absl::Duration patience = worker != nullptr ? kLocalConnectPatience : kConnectPatience;
  client->channel().WaitForConnected(absl::ToChronoTime(absl::Now() + patience));
  fprintf(stderr, "%s x %s; special-token look-alikes in prompts %s\n",
          CountText(set.prompts.size(), "prompt").c_str(), CountText(plans.size(), "plan").c_str(),
          flags.parse_special ? "become special tokens" : "stay text");
  const size_t accepted = flags.worker.max_running > 0
                              ? static_cast<size_t>(flags.worker.max_running) * kQueuedPerRunning
                              : kSequencesPerCall;
  const size_t per_call = std::max<size_t>(1, std::min(kSequencesPerCall, accepted) / plans.size());
  size_t done = 0;
  for (size_t first = 0; first < set.prompts.size(); first += per_call) {
    v1::GenerateRequest request = base;
    for (size_t i = first; i < std::min(first + per_call, set.prompts.size()); ++i) {
      AddPrompt(flags, set.prompts[i], forced, &request);
    }
    PLUMB_RETURN_IF_ERROR(RunBatch(*client, request, plans, flags.json, &done));
    if (OutputBroken()) return absl::OkStatus();
  }
  fprintf(stderr, "%s\n", CountText(done, "answer").c_str());
  return absl::OkStatus();
}

}  // namespace

void AddGenerateCommand(CLI::App& app, int* exit_code) {
  CLI::App* command =
      app.add_subcommand("generate", "Answers of a model under KV plans, without a study");
  command->footer(
      "Examples:\n"
      "  plumb generate --model models/smol --prompts prompts.txt --kv '*:fp' --kv "
      "'*:int4.asym.token' --json\n"
      "  plumb generate --model models/smol --prompts p.jsonl --force answers.jsonl --logits "
      "--json\n"
      "  plumb generate --model models/smol --prompts prompts.txt --stop-on-verdict");
  auto flags = std::make_shared<GenerateFlags>();
  command->add_option("--model", flags->model, "bundle folder (or a name, with --worker)")
      ->required();
  command
      ->add_option("--prompts", flags->prompts_file,
                   "jsonl with id and prompt, csv, txt, or a set's name")
      ->required();
  command->add_option("--kv", flags->plans, "plan; may be repeated (default *:fp)");
  command->add_option("--max-new-tokens", flags->max_new_tokens, "length of an answer")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  command->add_option("--dtype", flags->worker.dtype, "compute dtype")
      ->check(CLI::IsMember({"fp32", "bf16"}));
  command->add_option("--device", flags->worker.device, "cpu, cuda or cuda:N")->check(DeviceName());
  command->add_option("--threads", flags->worker.threads, "0 = all cores")
      ->check(CLI::Range(0, 1024));
  command
      ->add_option("--max-running", flags->worker.max_running, "sequences in a batch (0 = default)")
      ->check(CLI::Range(0, 65536));
  command->add_option(
      "--force", flags->force_file,
      "answers to feed: jsonl with id and token_ids, one line for each prompt and no other");
  command->add_option("--system", flags->system_prompt, "system prompt");
  command->add_option("--temperature", flags->temperature, "0 = greedy")
      ->check(CLI::Range(0.0, 100.0));
  command->add_option("--top-p", flags->top_p, "nucleus, with --temperature")
      ->check(CLI::Range(0.0, 1.0));
  command->add_option("--seed", flags->seed, "seed of sampled answers")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--jitter", flags->jitter_seed, "seed of 1-ulp noise on K and V (0 = none)")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--worker", flags->worker_address, "HOST:PORT of a running worker");
  command->add_flag("--json", flags->json, "one JSON object a line");
  command->add_flag("--raw", flags->raw, "skip the chat format");
  command->add_flag("--logits", flags->logits,
                    "top-2 ids and gap of each step, digest of all logits");
  command->add_flag("--parse-special", flags->parse_special,
                    "special-token look-alikes in prompts become special tokens");
  command->add_flag("--stop-on-verdict", flags->stop_on_verdict,
                    "end an answer where the keyword judge's verdict is decided, as studies do");
  command->add_flag("--ignore-eos", flags->ignore_eos,
                    "go on past EOS: every answer has --max-new-tokens tokens");
  command->add_flag("--paper-quirks", flags->paper_quirks,
                    "allow formats that the paper's code has by accident");
  command->callback([=] { *exit_code = Finish(Generate(*flags)); });
}

}  // namespace plumbline
