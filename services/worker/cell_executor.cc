#include "services/worker/cell_executor.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/digest.h"
#include "services/common/status_macros.h"
#include "services/worker/request_builder.h"
#include "services/worker/score_sum.h"

namespace plumbline {
namespace {

// First tokens of an answer that a result keeps, in about 400 bytes.
constexpr int kFirstTokens = 32;

v1::FinishReason ToProto(FinishReason reason) {
  switch (reason) {
    case FinishReason::kEos:
      return v1::FINISH_REASON_EOS;
    case FinishReason::kLength:
      return v1::FINISH_REASON_LENGTH;
    case FinishReason::kVerdict:
      return v1::FINISH_REASON_VERDICT;
    case FinishReason::kNonFinite:
      return v1::FINISH_REASON_NONFINITE;
  }
  return v1::FINISH_REASON_UNSPECIFIED;
}

v1::CellResult Failed(const std::string& cell_key, const absl::Status& status) {
  v1::CellResult result;
  result.set_cell_key(cell_key);
  result.mutable_status()->set_code(static_cast<int>(status.code()));
  result.mutable_status()->set_message(std::string(status.message()));
  return result;
}

// The prompt's turns key the sampled randomness, so a baseline and its condition draw alike.
std::string StreamKey(const v1::CellSpec& spec) {
  DigestBuilder digest("prompt-turns/1");
  for (const v1::ChatTurn& turn : spec.turns()) {
    digest.Add("role", static_cast<int>(turn.role())).Add("text", turn.text());
  }
  return digest.Finish();
}

SequenceInput InputOf(const v1::CellSpec& spec) {
  SequenceInput input;
  input.turns.assign(spec.turns().begin(), spec.turns().end());
  input.plan = spec.plan();
  input.decoding = spec.decoding();
  input.prompt_stream = StreamKey(spec);
  input.jitter_seed = spec.jitter_seed();
  return input;
}

}  // namespace

v1::CellResult ToCellResult(const SequenceResult& result, const TextModel& text) {
  v1::CellResult proto;
  proto.mutable_token_ids()->Add(result.tokens.begin(), result.tokens.end());
  proto.set_text(text.tokenizer->Decode(result.tokens, /*skip_special=*/true));
  proto.set_finish_reason(ToProto(result.finish_reason));
  for (const TopToken& top : result.first_top) {
    v1::TokenProbability* first = proto.add_first_tokens();
    first->set_token(top.token);
    first->set_log_probability(top.log_probability);
  }
  proto.set_nll_sum(result.nll_sum);
  proto.set_nll_tokens(result.nll_tokens);
  proto.set_kv_elements(result.kv_elements);
  proto.set_kv_elements_quantized(result.kv_elements_quantized);
  return proto;
}

void EngineCellExecutor::Start(const std::string& cell_key, const v1::CellSpec& spec, Done done) {
  absl::Status status;
  const absl::StatusOr<const CatalogEntry*> entry = catalog_->Find(spec.model_digest());
  if (!entry.ok()) {
    status = entry.status();
  } else if (spec.kind() == v1::CELL_KIND_GENERATE) {
    status = StartGenerate(cell_key, spec, **entry, done);
  } else if (spec.kind() == v1::CELL_KIND_SCORE) {
    status = StartScore(cell_key, spec, **entry, done);
  } else {
    status = absl::InvalidArgumentError(
        absl::StrCat("cell kind ", static_cast<int>(spec.kind()), " is not known to this worker"));
  }
  if (!status.ok()) done(Failed(cell_key, status));
}

absl::Status EngineCellExecutor::StartGenerate(const std::string& cell_key,
                                               const v1::CellSpec& spec, const CatalogEntry& entry,
                                               const Done& done) {
  PLUMB_ASSIGN_OR_RETURN(BuiltRequest built, BuildRequest(entry, InputOf(spec), calibrations_));
  const auto prompt_tokens = static_cast<uint32_t>(built.request.prompt_tokens.size());
  const std::string prompt_digest = TokenDigest(built.request.prompt_tokens);
  built.request.first_top = kFirstTokens;
  std::shared_ptr<const TextModel> text = entry.text;
  auto finish = [this, cell_key, done, text, prompt_tokens, prompt_digest,
                 keep = std::move(built.calibrations)](absl::StatusOr<SequenceResult> result) {
    Forget(cell_key);
    if (!result.ok()) return done(Failed(cell_key, result.status()));
    v1::CellResult proto = ToCellResult(*result, *text);
    proto.set_cell_key(cell_key);
    proto.set_prompt_tokens(prompt_tokens);
    proto.set_prompt_digest(prompt_digest);
    done(std::move(proto));
  };
  Submit(cell_key, entry, std::move(built.request), std::move(finish));
  return absl::OkStatus();
}

absl::Status EngineCellExecutor::StartScore(const std::string& cell_key, const v1::CellSpec& spec,
                                            const CatalogEntry& entry, const Done& done) {
  SequenceInput input = InputOf(spec);
  input.decoding.set_max_new_tokens(1);
  input.decoding.clear_stop_on_verdict();
  PLUMB_ASSIGN_OR_RETURN(const BuiltRequest whole, BuildRequest(entry, input, calibrations_));
  if (whole.request.prompt_tokens.size() < 2) {
    return absl::InvalidArgumentError("a text of one token has nothing to score");
  }
  std::vector<ScoreWindow> windows =
      ScoreWindows(whole.request.prompt_tokens, static_cast<int>(spec.score_window()),
                   static_cast<int>(spec.score_stride()));
  v1::CellResult frame;
  frame.set_cell_key(cell_key);
  frame.set_prompt_digest(TokenDigest(whole.request.prompt_tokens));
  frame.set_prompt_tokens(static_cast<uint32_t>(whole.request.prompt_tokens.size()));
  auto sum = std::make_shared<ScoreSum>(std::move(frame), windows.size());
  for (size_t w = 0; w < windows.size(); ++w) {
    SequenceRequest request = whole.request;
    request.prompt_tokens = std::move(windows[w].tokens);
    request.stem_tokens = 0;
    request.score_from =
        std::max(windows[w].score_from, w == 0 ? static_cast<int>(spec.score_from_token()) : 0);
    auto finish = [this, w, sum, cell_key, done,
                   keep = whole.calibrations](const absl::StatusOr<SequenceResult>& result) {
      if (!sum->Add(w, result)) return;
      Forget(cell_key);
      done(sum->Take());
    };
    Submit(cell_key, entry, std::move(request), std::move(finish));
  }
  return absl::OkStatus();
}

void EngineCellExecutor::Drop(const std::string& cell_key) {
  std::vector<uint64_t> ids;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (auto node = running_.extract(cell_key); !node.empty()) ids = std::move(node.mapped());
  }
  for (uint64_t id : ids) runner_->Cancel(id);
}

void EngineCellExecutor::Submit(const std::string& cell_key, const CatalogEntry& entry,
                                SequenceRequest request, EngineRunner::Done finish) {
  // Held over the submission, so that a sequence that finishes at once is remembered before
  // forgotten.
  std::lock_guard<std::mutex> lock(mutex_);
  running_[cell_key].push_back(runner_->Submit(entry, std::move(request), std::move(finish)));
}

void EngineCellExecutor::Forget(const std::string& cell_key) {
  std::lock_guard<std::mutex> lock(mutex_);
  running_.erase(cell_key);
}

}  // namespace plumbline
