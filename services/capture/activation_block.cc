#include "services/capture/activation_block.h"

#include <cmath>
#include <cstring>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "services/common/status_macros.h"

namespace plumbline {
namespace {

constexpr uint32_t kMaxHeads = 1024;
constexpr uint32_t kMaxHeadDim = 1024;
constexpr uint32_t kMaxPrompts = 100000;
constexpr uint32_t kMaxLayer = 10000;

absl::Status CheckRange(absl::string_view field, uint64_t value, uint64_t most) {
  if (value >= 1 && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("header.", field, " must be 1..", most, ", got ", value));
}

absl::Status CheckId(absl::string_view id) {
  bool good = !id.empty() && id.size() <= 64;
  for (char c : id) good = good && (absl::ascii_isalnum(c) || c == '-' || c == '_');
  if (good) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "header.capture_id must be 1..64 letters, digits, '-' or '_', got '", id.substr(0, 80), "'"));
}

std::string Place(const v1::ActivationBlock& block) {
  return absl::StrCat("layer ", block.layer(), ", prompt ", block.prompt_index());
}

absl::Status CheckTensor(const v1::ActivationBlock& block, absl::string_view name,
                         const std::string& bytes, uint32_t heads, uint32_t head_dim) {
  const uint64_t row = uint64_t{heads} * head_dim;
  const uint64_t wanted = uint64_t{block.tokens()} * row * sizeof(float);
  if (bytes.size() != wanted) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, " of ", Place(block), " must have ", wanted, " bytes (", block.tokens(),
                     " tokens x ", heads, " heads x ", head_dim, " x 4), got ", bytes.size()));
  }
  for (uint64_t i = 0; i < wanted / sizeof(float); ++i) {
    float value;
    memcpy(&value, bytes.data() + i * sizeof(float), sizeof(float));
    if (!std::isfinite(value)) {
      return absl::InvalidArgumentError(absl::StrCat(name, "[token ", i / row, ", head ",
                                                     i % row / head_dim, ", channel ", i % head_dim,
                                                     "] of ", Place(block), " is ", value));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckLayers(const v1::CaptureHeader& header) {
  if (header.layers().empty() && header.statistics_layers().empty()) {
    return absl::InvalidArgumentError(
        "header.layers is empty, and header.statistics_layers too: name a layer");
  }
  std::set<uint32_t> layers;
  for (const auto* list : {&header.layers(), &header.statistics_layers()}) {
    for (const uint32_t layer : *list) {
      if (layer <= kMaxLayer && layers.insert(layer).second) continue;
      return absl::InvalidArgumentError(absl::StrCat(
          "header.layers and header.statistics_layers must be different numbers in 0..", kMaxLayer,
          ", got ", layer, layer > kMaxLayer ? "" : " twice"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckCaptureHeader(const v1::CaptureHeader& header) {
  PLUMB_RETURN_IF_ERROR(CheckId(header.capture_id()));
  PLUMB_RETURN_IF_ERROR(CheckRange("num_kv_heads", header.num_kv_heads(), kMaxHeads));
  PLUMB_RETURN_IF_ERROR(CheckRange("num_heads", header.num_heads(), kMaxHeads));
  PLUMB_RETURN_IF_ERROR(CheckRange("head_dim", header.head_dim(), kMaxHeadDim));
  PLUMB_RETURN_IF_ERROR(CheckRange("prompts", header.prompts(), kMaxPrompts));
  if (header.num_heads() % header.num_kv_heads() != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("header.num_heads must be a multiple of num_kv_heads, got ",
                     header.num_heads(), " and ", header.num_kv_heads()));
  }
  PLUMB_RETURN_IF_ERROR(CheckLayers(header));
  const int rotations = header.rope_inverse_frequency_size();
  if (rotations != 0 && static_cast<uint32_t>(rotations) * 2 != header.head_dim()) {
    return absl::InvalidArgumentError(
        absl::StrCat("header.rope_inverse_frequency must have head_dim/2 = ", header.head_dim() / 2,
                     " numbers or none, got ", rotations));
  }
  for (double rotation : header.rope_inverse_frequency()) {
    if (!std::isfinite(rotation)) {
      return absl::InvalidArgumentError(
          absl::StrCat("header.rope_inverse_frequency holds ", rotation));
    }
  }
  return absl::OkStatus();
}

BlockChecker::BlockChecker(const v1::CaptureHeader& header) : header_(header) {}

absl::Status BlockChecker::Check(const v1::ActivationBlock& block) {
  bool known = false;
  for (uint32_t layer : header_.layers()) known = known || layer == block.layer();
  if (!known) {
    return absl::InvalidArgumentError(absl::StrCat(
        "block of ", Place(block), ": header.layers does not name layer ", block.layer()));
  }
  if (block.prompt_index() >= header_.prompts()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "block of ", Place(block), ": prompt_index must be 0..", header_.prompts() - 1));
  }
  if (block.tokens() < 1 || block.tokens() > kMaxPromptTokens) {
    return absl::InvalidArgumentError(absl::StrCat("tokens of ", Place(block), " must be 1..",
                                                   kMaxPromptTokens, ", got ", block.tokens()));
  }
  PLUMB_RETURN_IF_ERROR(
      CheckTensor(block, "keys", block.keys(), header_.num_kv_heads(), header_.head_dim()));
  PLUMB_RETURN_IF_ERROR(
      CheckTensor(block, "values", block.values(), header_.num_kv_heads(), header_.head_dim()));
  if (!block.queries().empty()) {
    PLUMB_RETURN_IF_ERROR(
        CheckTensor(block, "queries", block.queries(), header_.num_heads(), header_.head_dim()));
  }
  if (!seen_.emplace(block.layer(), block.prompt_index()).second) {
    return absl::InvalidArgumentError(absl::StrCat("block of ", Place(block), " came twice"));
  }
  tokens_[block.layer()] += block.tokens();
  return absl::OkStatus();
}

uint64_t BlockChecker::TokensOf(uint32_t layer) const {
  const auto found = tokens_.find(layer);
  return found == tokens_.end() ? 0 : found->second;
}

absl::Status BlockChecker::CheckComplete() const {
  for (uint32_t layer : header_.layers()) {
    for (uint32_t prompt = 0; prompt < header_.prompts(); ++prompt) {
      if (seen_.count({layer, prompt}) == 0) {
        return absl::InvalidArgumentError(absl::StrCat(
            "the stream ended without the block of layer ", layer, ", prompt ", prompt, " (",
            seen_.size(), " of ", header_.layers_size() * uint64_t{header_.prompts()}, " came)"));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace plumbline
