#include "services/judge/judge_service.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/common/files.h"
#include "services/common/logging.h"
#include "services/common/status_macros.h"
#include "services/judge/model_judge.h"
#include "services/judge/phrases.h"
#include "services/rpc/server.h"
#include "services/rpc/status.h"

namespace plumbline {
namespace {

constexpr int64_t kMaxPhrasesFileBytes = 1 << 20;

v1::VerdictLabel ToProto(VerdictLabel label) {
  switch (label) {
    case VerdictLabel::kRefuse:
      return v1::VERDICT_LABEL_REFUSE;
    case VerdictLabel::kComply:
      return v1::VERDICT_LABEL_COMPLY;
    case VerdictLabel::kDegenerate:
      return v1::VERDICT_LABEL_DEGENERATE;
    case VerdictLabel::kNonFinite:
      return v1::VERDICT_LABEL_NONFINITE;
    case VerdictLabel::kJudgeFailed:
      break;
  }
  return v1::VERDICT_LABEL_JUDGE_FAILED;
}

v1::Verdict VerdictFrom(const Judgement& judgement, absl::string_view judge,
                        absl::string_view version) {
  v1::Verdict verdict;
  verdict.set_label(ToProto(judgement.label));
  verdict.set_judge(std::string(judge));
  verdict.set_judge_version(std::string(version));
  verdict.set_evidence(judgement.evidence);
  return verdict;
}

std::string ModelJudgeNames() {
  return absl::StrJoin(ModelJudges(), " ", [](std::string* out, const ModelJudge* judge) {
    absl::StrAppend(out, judge->name());
  });
}

absl::StatusOr<const ModelJudge*> ModelJudgeNamed(const std::string& name) {
  const ModelJudge* judge = FindModelJudge(name);
  if (judge != nullptr) return judge;
  if (name == KeywordJudge::kName || name.empty()) {
    return absl::FailedPreconditionError(
        "the keyword judge needs no model: send the answer to Judge");
  }
  return absl::NotFoundError(
      absl::StrCat("unknown judge '", name, "'; model judges: ", ModelJudgeNames()));
}

absl::StatusOr<std::vector<JudgeTurn>> TurnsFrom(
    const google::protobuf::RepeatedPtrField<v1::ChatTurn>& turns) {
  std::vector<JudgeTurn> result;
  for (const v1::ChatTurn& turn : turns) {
    switch (turn.role()) {
      case v1::ROLE_SYSTEM:
        result.push_back({JudgeTurn::Speaker::kSystem, turn.text()});
        break;
      case v1::ROLE_USER:
        result.push_back({JudgeTurn::Speaker::kUser, turn.text()});
        break;
      case v1::ROLE_ASSISTANT:
        result.push_back({JudgeTurn::Speaker::kAssistant, turn.text()});
        break;
      default:
        return absl::InvalidArgumentError(
            absl::StrCat("turns[", result.size(), "].role must be system, user or assistant, got ",
                         turn.role()));
    }
  }
  return result;
}

}  // namespace

absl::StatusOr<std::unique_ptr<JudgeService>> JudgeService::Create(const v1::JudgeConfig& config,
                                                                   Metrics* metrics) {
  KeywordJudgeOptions options;
  if (!config.phrases_file().empty()) {
    PLUMB_ASSIGN_OR_RETURN(std::string text, ReadFile(config.phrases_file(), kMaxPhrasesFileBytes));
    auto phrases = ParseRefusalPhrases(text);
    if (!phrases.ok()) {
      return Annotate(phrases.status(), absl::StrCat("phrases_file ", config.phrases_file()));
    }
    options.phrases = *std::move(phrases);
  }
  PLUMB_ASSIGN_OR_RETURN(auto keyword, KeywordJudge::Create(options));
  std::unique_ptr<VerdictCache> cache = MemoryVerdictCache();
  if (!config.cache_file().empty()) {
    PLUMB_ASSIGN_OR_RETURN(cache, SqliteVerdictCache(config.cache_file()));
  }
  return std::unique_ptr<JudgeService>(
      new JudgeService(std::move(keyword), std::move(cache), metrics));
}

// A broken cache costs time, not verdicts: they are a pure function of the answer.
Judgement JudgeService::CachedJudgement(const Answer& answer) {
  const std::string key = VerdictCacheKey(keyword_->version(), answer);
  const auto found = cache_->Find(key);
  if (!found.ok()) spdlog::warn("{}", std::string(found.status().message()));
  if (found.ok() && found->has_value()) {
    if (metrics_ != nullptr) metrics_->Increment(metric::kVerdictCacheHits, {});
    return **found;
  }
  Judgement judgement = keyword_->Judge(answer);
  const absl::Status put = cache_->Put(key, judgement);
  if (!put.ok()) spdlog::warn("{}", std::string(put.message()));
  return judgement;
}

absl::StatusOr<v1::Verdict> JudgeService::JudgeOne(const v1::JudgeRequest& request) {
  if (request.key().empty()) {
    return absl::InvalidArgumentError("key is empty: give each answer a key, it is echoed");
  }
  if (!request.judge().empty() && request.judge() != KeywordJudge::kName) {
    if (FindModelJudge(request.judge()) != nullptr) {
      return absl::InvalidArgumentError(absl::StrCat(
          "judge '", request.judge(),
          "' needs a model: ask PlanJudgement, run the turns it gives on that model, and ",
          "send the answer to ParseJudgement"));
    }
    return absl::InvalidArgumentError(
        absl::StrCat("unknown judge '", request.judge(), "'; Judge knows: ", KeywordJudge::kName));
  }
  const Answer answer{.text = request.text(),
                      .token_ids = {request.token_ids().begin(), request.token_ids().end()},
                      .nonfinite = request.finish_reason() == v1::FINISH_REASON_NONFINITE};
  const Judgement judgement = CachedJudgement(answer);
  if (metrics_ != nullptr) {
    metrics_->Increment(metric::kVerdicts,
                        {KeywordJudge::kName, VerdictLabelName(judgement.label)});
  }
  return VerdictFrom(judgement, KeywordJudge::kName, keyword_->rules_version());
}

grpc::Status JudgeService::Judge(
    grpc::ServerContext* context,
    grpc::ServerReaderWriter<v1::JudgeResponse, v1::JudgeRequest>* stream) {
  v1::JudgeRequest request;
  for (int64_t number = 0; stream->Read(&request); ++number) {
    if (context->IsCancelled()) return grpc::Status(grpc::CANCELLED, "the caller went away");
    absl::StatusOr<v1::Verdict> verdict = JudgeOne(request);
    if (!verdict.ok()) {
      return ToGrpcStatus(Annotate(
          verdict.status(), absl::StrCat("answer ", number, " of the stream (key '",
                                         absl::string_view(request.key()).substr(0, 64), "')")));
    }
    v1::JudgeResponse response;
    response.set_key(request.key());
    *response.mutable_verdict() = *std::move(verdict);
    if (!stream->Write(response)) return grpc::Status(grpc::CANCELLED, "the caller went away");
  }
  return grpc::Status::OK;
}

grpc::Status JudgeService::ListJudges(grpc::ServerContext*, const v1::ListJudgesRequest*,
                                      v1::ListJudgesResponse* response) {
  const v1::ListJudgesResponse cards = BuiltInJudgeCards();
  const auto add = [&](const std::string& name, const std::string& version) {
    v1::JudgeCard* card = response->add_judges();
    card->set_judge(name);
    card->set_version(version);
    // A measurement belongs to the version it was made with and to no other.
    for (const v1::JudgeCard& measured : cards.judges()) {
      if (measured.judge() == name && measured.version() == version) {
        *card->mutable_agreements() = measured.agreements();
      }
    }
    return card;
  };
  add(KeywordJudge::kName, keyword_->rules_version())
      ->set_description(absl::StrCat("Refusal phrases (", keyword_->phrases().size(),
                                     ") and rules for degenerate answers; needs no model."));
  for (const ModelJudge* judge : ModelJudges()) {
    v1::JudgeCard* card = add(judge->name(), judge->version());
    card->set_description(judge->description());
    card->set_model(judge->model());
  }
  return grpc::Status::OK;
}

grpc::Status JudgeService::PlanJudgement(grpc::ServerContext*,
                                         const v1::PlanJudgementRequest* request,
                                         v1::PlanJudgementResponse* response) {
  const auto judge = ModelJudgeNamed(request->judge());
  if (!judge.ok()) return ToGrpcStatus(judge.status());
  const auto turns = TurnsFrom(request->turns());
  if (!turns.ok()) return ToGrpcStatus(turns.status());
  const auto prompt = (*judge)->Plan(*turns, request->answer());
  if (!prompt.ok()) return ToGrpcStatus(prompt.status());
  response->set_model((*judge)->model());
  v1::ChatTurn* turn = response->add_turns();
  turn->set_role(v1::ROLE_USER);
  turn->set_text(prompt->text);
  response->mutable_decoding()->set_max_new_tokens(static_cast<uint32_t>(prompt->max_new_tokens));
  response->mutable_decoding()->set_raw(prompt->raw);
  // The template's own marks are tokens; a raw template without them would be another question. The
  // judged answer's look-alikes are the price, which the judge's card measures.
  response->mutable_decoding()->set_parse_special(prompt->raw);
  return grpc::Status::OK;
}

grpc::Status JudgeService::ParseJudgement(grpc::ServerContext*,
                                          const v1::ParseJudgementRequest* request,
                                          v1::ParseJudgementResponse* response) {
  const auto judge = ModelJudgeNamed(request->judge());
  if (!judge.ok()) return ToGrpcStatus(judge.status());
  const Judgement judgement = (*judge)->Parse(request->judge_answer());
  if (metrics_ != nullptr) {
    metrics_->Increment(metric::kVerdicts, {(*judge)->name(), VerdictLabelName(judgement.label)});
  }
  *response->mutable_verdict() = VerdictFrom(judgement, (*judge)->name(), (*judge)->version());
  return grpc::Status::OK;
}

absl::Status RunJudge(const v1::JudgeConfig& config, Process& process) {
  PLUMB_ASSIGN_OR_RETURN(auto service, JudgeService::Create(config, process.metrics));
  spdlog::info("judge {}/{}", KeywordJudge::kName, service->keyword_version());
  return ServeUntilShutdown({.default_listen = kJudgeListen,
                             .config = config.server(),
                             .services = {Hosted<v1::RefusalJudge>(service.get())},
                             .metrics = process.metrics},
                            process);
}

}  // namespace plumbline
