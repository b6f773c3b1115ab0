#include "services/worker/generation_service.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/rpc/status.h"
#include "services/worker/cell_executor.h"
#include "services/worker/request_builder.h"

namespace plumbline {
namespace {

// Answers of one call, handed from the engine's thread to the call's.
class Inbox {
 public:
  void Push(size_t index, absl::StatusOr<SequenceResult> result) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      items_.emplace_back(index, std::move(result));
    }
    ready_.notify_one();
  }
  bool Pop(std::pair<size_t, absl::StatusOr<SequenceResult>>* item) {
    std::unique_lock<std::mutex> lock(mutex_);
    if (!ready_.wait_for(lock, std::chrono::milliseconds(100),
                         [this] { return !items_.empty(); })) {
      return false;
    }
    *item = std::move(items_.front());
    items_.pop_front();
    return true;
  }

 private:
  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<std::pair<size_t, absl::StatusOr<SequenceResult>>> items_;
};

struct Planned {
  BuiltRequest built;
  std::string prompt_id;
  uint32_t plan_index = 0;
  uint32_t prompt_tokens = 0;
  std::string prompt_digest;
};

absl::StatusOr<std::vector<Planned>> PlanCall(const v1::GenerateRequest& request,
                                              const CatalogEntry& entry,
                                              CalibrationSource* calibrations) {
  std::vector<std::string> plans(request.plans().begin(), request.plans().end());
  if (plans.empty()) plans.push_back("*:fp");
  if (request.prompts().empty()) return absl::InvalidArgumentError("prompts: none given");
  std::map<std::string, const v1::ForcedAnswer*> forced;
  for (const v1::ForcedAnswer& answer : request.forced()) forced[answer.prompt_id()] = &answer;
  std::vector<Planned> planned;
  for (const v1::Prompt& prompt : request.prompts()) {
    for (size_t p = 0; p < plans.size(); ++p) {
      SequenceInput input;
      input.turns.assign(prompt.turns().begin(), prompt.turns().end());
      input.plan = plans[p];
      input.decoding = request.decoding();
      input.prompt_stream = prompt.id();
      input.jitter_seed = request.jitter_seed();
      input.paper_quirks = request.paper_quirks();
      absl::StatusOr<BuiltRequest> built = BuildRequest(entry, input, calibrations);
      if (!built.ok()) return Annotate(built.status(), absl::StrCat("prompt '", prompt.id(), "'"));
      if (request.ignore_eos()) built->request.stop_tokens.clear();
      built->request.want_steps = request.want_steps();
      built->request.want_logit_digest = request.want_logit_digest();
      if (auto it = forced.find(prompt.id()); it != forced.end()) {
        built->request.forced_tokens.assign(it->second->token_ids().begin(),
                                            it->second->token_ids().end());
      }
      Planned item;
      item.prompt_id = prompt.id();
      item.plan_index = static_cast<uint32_t>(p);
      item.prompt_tokens = static_cast<uint32_t>(built->request.prompt_tokens.size());
      item.prompt_digest = TokenDigest(built->request.prompt_tokens);
      item.built = *std::move(built);
      planned.push_back(std::move(item));
    }
  }
  return planned;
}

v1::GenerateResponse ToResponse(const Planned& planned, const SequenceResult& result,
                                const TextModel& text) {
  v1::GenerateResponse response;
  response.set_prompt_id(planned.prompt_id);
  response.set_plan_index(planned.plan_index);
  *response.mutable_result() = ToCellResult(result, text);
  response.mutable_result()->set_prompt_tokens(planned.prompt_tokens);
  response.mutable_result()->set_prompt_digest(planned.prompt_digest);
  response.set_logit_digest(result.logit_digest);
  for (const StepTrace& step : result.steps) {
    v1::StepTrace* trace = response.add_steps();
    trace->set_top1(step.top1);
    trace->set_top2(step.top2);
    trace->set_top1_logit(step.top1_logit);
    trace->set_top2_logit(step.top2_logit);
    trace->set_regret(step.regret);
  }
  return response;
}

}  // namespace

grpc::Status GenerationService::Generate(grpc::ServerContext* context,
                                         const v1::GenerateRequest* request,
                                         grpc::ServerWriter<v1::GenerateResponse>* writer) {
  const absl::StatusOr<const CatalogEntry*> entry = catalog_->Find(request->model());
  if (!entry.ok()) return ToGrpcStatus(entry.status());
  absl::StatusOr<std::vector<Planned>> planned = PlanCall(*request, **entry, calibrations_);
  if (!planned.ok()) return ToGrpcStatus(planned.status());
  if (runner_->active() + static_cast<int>(planned->size()) > max_active_) {
    return ToGrpcStatus(absl::ResourceExhaustedError(
        absl::StrCat(planned->size(), " sequences asked for, ", runner_->active(),
                     " are active and the limit is ", max_active_, ": send fewer at a time")));
  }
  auto inbox = std::make_shared<Inbox>();
  std::vector<uint64_t> ids;
  for (size_t i = 0; i < planned->size(); ++i) {
    ids.push_back(runner_->Submit(
        **entry, std::move((*planned)[i].built.request),
        [inbox, i](absl::StatusOr<SequenceResult> result) { inbox->Push(i, std::move(result)); }));
  }
  absl::Status status;
  size_t finished = 0;
  while (finished < planned->size() && status.ok()) {
    std::pair<size_t, absl::StatusOr<SequenceResult>> item{0, absl::UnknownError("")};
    if (context->IsCancelled()) {
      status = absl::CancelledError("the caller went away or its deadline passed");
    } else if (inbox->Pop(&item)) {
      ++finished;
      status = Annotate(item.second.status(),
                        absl::StrCat("prompt '", (*planned)[item.first].prompt_id, "'"));
      if (status.ok() &&
          !writer->Write(ToResponse((*planned)[item.first], *item.second, *(*entry)->text))) {
        status = absl::CancelledError("the caller went away");
      }
    }
  }
  if (!status.ok()) {
    for (uint64_t id : ids) runner_->Cancel(id);
  }
  return ToGrpcStatus(status);
}

grpc::Status GenerationService::ListModels(grpc::ServerContext*, const v1::ListModelsRequest*,
                                           v1::ListModelsResponse* response) {
  for (const CatalogEntry& entry : catalog_->entries()) *response->add_models() = entry.info;
  *response->mutable_numerics() = numerics_;
  *response->mutable_left_out() = {catalog_->left_out().begin(), catalog_->left_out().end()};
  return grpc::Status::OK;
}

}  // namespace plumbline
