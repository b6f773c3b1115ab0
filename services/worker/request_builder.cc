#include "services/worker/request_builder.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "services/common/digest.h"
#include "services/common/status_macros.h"
#include "services/judge/keyword_judge.h"
#include "services/quant/plan_parser.h"

namespace plumbline {
namespace {

absl::StatusOr<std::string> RoleName(v1::Role role) {
  switch (role) {
    case v1::ROLE_SYSTEM:
      return std::string("system");
    case v1::ROLE_USER:
      return std::string("user");
    case v1::ROLE_ASSISTANT:
      return std::string("assistant");
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("turn has role ", static_cast<int>(role),
                       "; use ROLE_SYSTEM, ROLE_USER or ROLE_ASSISTANT"));
  }
}

uint64_t StreamOf(const std::string& prompt_stream, uint32_t sample_index) {
  const std::string digest = DigestBuilder("sampling-stream/1")
                                 .Add("prompt", prompt_stream)
                                 .Add("sample", int64_t{sample_index})
                                 .Finish();
  return std::stoull(digest.substr(0, 16), nullptr, 16);
}

// The built-in phrases: a judge with others has another version, which CheckDecoding refuses.
const KeywordJudge& StopJudge() {
  static const KeywordJudge* const judge = KeywordJudge::Create({}).value().release();
  return *judge;
}

// Feeds the judge's incremental decider with the text that each token completes.
std::function<bool(int32_t)> VerdictStop(std::shared_ptr<const TextModel> text) {
  struct State {
    explicit State(std::shared_ptr<const TextModel> model)
        : text(std::move(model)), decoder(text->tokenizer.get()), decider(&StopJudge()) {}
    std::shared_ptr<const TextModel> text;
    IncrementalDecoder decoder;
    VerdictDecider decider;
  };
  auto state = std::make_shared<State>(std::move(text));
  return [state](int32_t token) { return state->decider.Push(state->decoder.Push(token)); };
}

absl::Status CheckDecoding(const v1::DecodingSettings& decoding) {
  if (decoding.max_new_tokens() < 1 || decoding.max_new_tokens() > 4096) {
    return absl::InvalidArgumentError(
        absl::StrCat("decoding.max_new_tokens must be 1..4096, got ", decoding.max_new_tokens()));
  }
  const v1::Sampling& sampling = decoding.sampling();
  if (!(sampling.temperature() >= 0) || sampling.temperature() > 100) {
    return absl::InvalidArgumentError(absl::StrCat(
        "decoding.sampling.temperature must be 0..100 (0 = greedy), got ", sampling.temperature()));
  }
  if (!(sampling.top_p() >= 0) || sampling.top_p() > 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "decoding.sampling.top_p must be in (0, 1] (0 means 1), got ", sampling.top_p()));
  }
  const std::string& stop = decoding.stop_on_verdict();
  if (!stop.empty() && stop != StopJudge().version()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "decoding.stop_on_verdict is '", stop, "', but this worker's judge is '",
        StopJudge().version(), "': run the same version everywhere, or run_to_the_end"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<int32_t>> EncodePrompt(const TextModel& text,
                                                  const std::vector<v1::ChatTurn>& turns,
                                                  const v1::DecodingSettings& decoding) {
  const SpecialTokens special =
      decoding.parse_special() ? SpecialTokens::kParse : SpecialTokens::kText;
  std::vector<int32_t> tokens;
  if (decoding.raw()) {
    if (turns.size() != 1 || turns[0].role() != v1::ROLE_USER) {
      return absl::InvalidArgumentError(
          absl::StrCat("raw decoding takes exactly one user turn, got ", turns.size(), " turns"));
    }
    tokens = text.tokenizer->Encode(turns[0].text(), special);
    // As the model's own tokenizer does with plain text; one that the text holds is not doubled.
    const int32_t bos = text.config.bos_token_id;
    if (bos >= 0 && !tokens.empty() && tokens.front() != bos) tokens.insert(tokens.begin(), bos);
  } else if (!text.chat.has_value()) {
    return absl::InvalidArgumentError(
        "the model has no chat format: it takes raw prompts only, as base models do; give --raw "
        "(decoding.raw)");
  } else {
    std::vector<ChatTurn> plain;
    for (const v1::ChatTurn& turn : turns) {
      PLUMB_ASSIGN_OR_RETURN(std::string role, RoleName(turn.role()));
      plain.push_back({std::move(role), turn.text()});
    }
    PLUMB_ASSIGN_OR_RETURN(tokens, text.chat->Encode(*text.tokenizer, plain, special));
  }
  if (tokens.empty()) return absl::InvalidArgumentError("the prompt has no token");
  return tokens;
}

int StemTokens(const TextModel& text, const std::vector<v1::ChatTurn>& turns,
               const v1::DecodingSettings& decoding, const std::vector<int32_t>& tokens) {
  if (decoding.raw() || turns.empty()) return 0;
  std::vector<v1::ChatTurn> stem(turns.begin(), turns.end());
  stem.back().set_text("");
  const auto begun = EncodePrompt(text, stem, decoding);
  if (!begun.ok()) return 0;
  const auto parted = std::mismatch(begun->begin(), begun->end(), tokens.begin(), tokens.end());
  return std::min(static_cast<int>(parted.second - tokens.begin()),
                  static_cast<int>(tokens.size()) - 1);
}

absl::StatusOr<std::vector<LayerFormat>> ResolvePlan(const std::string& plan,
                                                     const v1::ModelInfo& model,
                                                     bool paper_quirks) {
  PlanParseOptions options;
  options.paper_quirks = paper_quirks;
  PLUMB_ASSIGN_OR_RETURN(const Plan parsed, ParsePlan(plan, options));
  return parsed.Resolve(static_cast<int>(model.num_layers()),
                        static_cast<int>(model.num_kv_heads()), static_cast<int>(model.head_dim()));
}

absl::StatusOr<BuiltRequest> BuildRequest(const CatalogEntry& entry, const SequenceInput& input,
                                          CalibrationSource* calibrations) {
  PLUMB_RETURN_IF_ERROR(CheckDecoding(input.decoding));
  BuiltRequest built;
  SequenceRequest& request = built.request;
  PLUMB_ASSIGN_OR_RETURN(request.prompt_tokens,
                         EncodePrompt(*entry.text, input.turns, input.decoding));
  request.stem_tokens = StemTokens(*entry.text, input.turns, input.decoding, request.prompt_tokens);
  PLUMB_ASSIGN_OR_RETURN(request.layers, ResolvePlan(input.plan, entry.info, input.paper_quirks));
  request.max_new_tokens = static_cast<int>(input.decoding.max_new_tokens());
  request.stop_tokens = entry.text->config.eos_token_ids;
  const v1::Sampling& sampling = input.decoding.sampling();
  request.sampling.temperature = sampling.temperature();
  request.sampling.top_p = sampling.top_p() == 0 ? 1 : sampling.top_p();
  request.sampling.seed = sampling.seed();
  request.sampling.stream = StreamOf(input.prompt_stream, sampling.sample_index());
  request.jitter_seed = input.jitter_seed;
  if (!input.decoding.stop_on_verdict().empty()) request.verdict_decided = VerdictStop(entry.text);
  for (size_t layer = 0; layer < request.layers.size(); ++layer) {
    const LayerFormat& format = request.layers[layer];
    std::pair<const Calibration*, const Calibration*> pair{nullptr, nullptr};
    for (const bool is_key : {true, false}) {
      const TensorFormat& tensor = is_key ? format.key : format.value;
      if (tensor.scope != Scope::kCalibrated) continue;
      PLUMB_ASSIGN_OR_RETURN(std::shared_ptr<const LayerCalibration> found,
                             calibrations->Get(tensor.calibration_digest, static_cast<int>(layer)));
      (is_key ? pair.first : pair.second) = is_key ? &found->key : &found->value;
      built.calibrations.push_back(std::move(found));
    }
    request.calibrations.push_back(pair);
  }
  return built;
}

std::vector<ScoreWindow> ScoreWindows(const std::vector<int32_t>& tokens, int window, int stride) {
  std::vector<ScoreWindow> windows;
  const int total = static_cast<int>(tokens.size());
  if (window <= 0 || window >= total) return {{tokens, 1}};
  window = std::max(window, 2);
  stride = std::clamp(stride, 1, window - 1);  // a scored token has at least one before it
  int scored = 1;  // the first token has no context to be predicted from
  for (int begin = 0; scored < total; begin += stride) {
    const int end = std::min(begin + window, total);
    windows.push_back({{tokens.begin() + begin, tokens.begin() + end}, scored - begin});
    scored = end;
  }
  return windows;
}

std::string TokenDigest(const std::vector<int32_t>& tokens) {
  static_assert(sizeof(int32_t) == 4);
  std::string bytes(tokens.size() * 4, '\0');
  for (size_t i = 0; i < tokens.size(); ++i) {
    const auto value = static_cast<uint32_t>(tokens[i]);
    for (int b = 0; b < 4; ++b) bytes[i * 4 + b] = static_cast<char>((value >> (8 * b)) & 0xff);
  }
  return Sha256Hex(bytes);
}

}  // namespace plumbline
