// RefusalJudge over gRPC: the keyword judge with its cache, and the model judges' questions.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "plumbline/v1/config.pb.h"
#include "plumbline/v1/judge.grpc.pb.h"
#include "services/judge/keyword_judge.h"
#include "services/judge/verdict_cache.h"
#include "services/rpc/metrics.h"
#include "services/rpc/real_main.h"

namespace plumbline {

// Thread safe.
class JudgeService final : public v1::RefusalJudge::Service {
 public:
  // Reads the phrases file and opens the cache that the config names. Errors name the file.
  // metrics may be null.
  static absl::StatusOr<std::unique_ptr<JudgeService>> Create(const v1::JudgeConfig& config,
                                                              Metrics* metrics);

  grpc::Status Judge(
      grpc::ServerContext* context,
      grpc::ServerReaderWriter<v1::JudgeResponse, v1::JudgeRequest>* stream) override;
  grpc::Status ListJudges(grpc::ServerContext* context, const v1::ListJudgesRequest* request,
                          v1::ListJudgesResponse* response) override;
  grpc::Status PlanJudgement(grpc::ServerContext* context, const v1::PlanJudgementRequest* request,
                             v1::PlanJudgementResponse* response) override;
  grpc::Status ParseJudgement(grpc::ServerContext* context,
                              const v1::ParseJudgementRequest* request,
                              v1::ParseJudgementResponse* response) override;

  const std::string& keyword_version() const { return keyword_->rules_version(); }

 private:
  JudgeService(std::unique_ptr<KeywordJudge> keyword, std::unique_ptr<VerdictCache> cache,
               Metrics* metrics)
      : keyword_(std::move(keyword)), cache_(std::move(cache)), metrics_(metrics) {}

  absl::StatusOr<v1::Verdict> JudgeOne(const v1::JudgeRequest& request);
  Judgement CachedJudgement(const Answer& answer);

  std::unique_ptr<KeywordJudge> keyword_;
  std::unique_ptr<VerdictCache> cache_;
  Metrics* metrics_;
};

// Measured agreement of the built-in judges (data/judge/card.json at build time); empty before any
// measurement.
v1::ListJudgesResponse BuiltInJudgeCards();

absl::Status RunJudge(const v1::JudgeConfig& config, Process& process);

}  // namespace plumbline
