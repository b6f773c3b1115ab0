#include "services/cells/cells.h"

#include <bit>

#include "absl/strings/str_cat.h"
#include "services/common/digest.h"

namespace plumbline {
namespace {

void AddTurns(const v1::CellSpec& spec, DigestBuilder* digest) {
  digest->Add("turns", spec.turns_size());
  for (const v1::ChatTurn& turn : spec.turns()) {
    digest->Add("role", static_cast<int>(turn.role())).Add("text", turn.text());
  }
}

void AddDecoding(const v1::DecodingSettings& decoding, DigestBuilder* digest) {
  const v1::Sampling& sampling = decoding.sampling();
  digest->Add("max_new_tokens", static_cast<int64_t>(decoding.max_new_tokens()))
      .Add("temperature", sampling.temperature())
      .Add("top_p", sampling.top_p())
      .Add("seed", absl::StrCat(sampling.seed()))
      .Add("sample_index", static_cast<int64_t>(sampling.sample_index()))
      .Add("stop_on_verdict", decoding.stop_on_verdict())
      .Add("raw", decoding.raw() ? 2 : 0)  // 1: raw prompts had no BOS
      .Add("parse_special", static_cast<int>(decoding.parse_special()));
}

void AddBytes(uint32_t value, std::string* bytes) {
  for (int shift = 0; shift < 32; shift += 8) {
    bytes->push_back(static_cast<char>((value >> shift) & 0xff));
  }
}

std::string TokenBytes(const v1::CellResult& result) {
  std::string bytes;
  bytes.reserve(static_cast<size_t>(result.token_ids_size()) * 4);
  for (const int32_t token : result.token_ids()) AddBytes(static_cast<uint32_t>(token), &bytes);
  return bytes;
}

std::string FirstTokenBytes(const v1::CellResult& result) {
  std::string bytes;
  for (const v1::TokenProbability& first : result.first_tokens()) {
    AddBytes(static_cast<uint32_t>(first.token()), &bytes);
    AddBytes(std::bit_cast<uint32_t>(first.log_probability()), &bytes);
  }
  return bytes;
}

}  // namespace

std::string CellKey(const v1::CellSpec& spec) {
  DigestBuilder digest("plumbline cell/1");
  digest.Add("kind", static_cast<int>(spec.kind())).Add("model_digest", spec.model_digest());
  AddTurns(spec, &digest);
  digest.Add("plan", spec.plan());
  AddDecoding(spec.decoding(), &digest);
  digest.Add("jitter_seed", absl::StrCat(spec.jitter_seed()))
      .Add("numerics_class_id", spec.numerics_class_id())
      .Add("score_from_token", static_cast<int64_t>(spec.score_from_token()))
      .Add("score_window", static_cast<int64_t>(spec.score_window()))
      .Add("score_stride", static_cast<int64_t>(spec.score_stride()));
  // 2: a NaN among the logits of a scored text is told, where it was cut off before.
  if (spec.kind() == v1::CELL_KIND_SCORE) digest.Add("score", 2);
  return digest.Finish();
}

std::string ResultDigest(const v1::CellResult& result) {
  DigestBuilder digest("plumbline result/1");
  digest.Add("cell_key", result.cell_key())
      .Add("status", result.status().code())
      .Add("token_ids", TokenBytes(result))
      .Add("text", result.text())
      .Add("finish_reason", static_cast<int>(result.finish_reason()))
      .Add("prompt_tokens", static_cast<int64_t>(result.prompt_tokens()))
      .Add("prompt_digest", result.prompt_digest())
      .Add("nll_sum", result.nll_sum())
      .Add("nll_tokens", absl::StrCat(result.nll_tokens()))
      .Add("kv_elements", absl::StrCat(result.kv_elements()))
      .Add("kv_elements_quantized", absl::StrCat(result.kv_elements_quantized()));
  // A result without them keeps the digest that it had before there were any.
  if (result.first_tokens_size() > 0) digest.Add("first_tokens", FirstTokenBytes(result));
  return digest.Finish();
}

std::string VerdictKey(const v1::CellResult& result, const std::string& judge,
                       const std::string& judge_version) {
  return DigestBuilder("plumbline verdict/1")
      .Add("token_ids", TokenBytes(result))
      .Add("text", result.text())
      .Add("finish_reason", static_cast<int>(result.finish_reason()))
      .Add("judge", judge)
      .Add("judge_version", judge_version)
      .Finish();
}

}  // namespace plumbline
