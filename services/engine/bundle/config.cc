#include <cmath>

#include "services/common/status_macros.h"
#include "services/engine/bundle/json_fields.h"
#include "services/engine/model_bundle.h"

namespace plumbline {
namespace {

constexpr int64_t kMaxSize = int64_t{1} << 24;  // of any one dimension
constexpr int64_t kMaxContext = int64_t{1} << 30;

absl::Status ReadInteger(const Json& json, const char* key, int64_t low, int64_t high, int& out) {
  PLUMB_ASSIGN_OR_RETURN(const int64_t value, IntegerField(json, key, "", low, high));
  out = static_cast<int>(value);
  return absl::OkStatus();
}

absl::StatusOr<double> PositiveNumber(const Json& value, absl::string_view path) {
  if (!value.is_number() || !std::isfinite(value.get<double>()) || value.get<double>() <= 0) {
    return WrongField(path, "a positive finite number", value);
  }
  return value.get<double>();
}

absl::StatusOr<bool> BoolField(const Json& json, const char* key, bool otherwise) {
  const Json* value = FindField(json, key);
  if (value == nullptr) return otherwise;
  if (!value->is_boolean()) return WrongField(key, "true or false", *value);
  return value->get<bool>();
}

absl::Status MustBeOff(const Json& json, const char* key) {
  PLUMB_ASSIGN_OR_RETURN(const bool on, BoolField(json, key, false));
  return on ? WrongField(key, "false or absent: the engine has no such path", json[key])
            : absl::OkStatus();
}

absl::Status ReadFamily(const Json& json, ModelConfig& config) {
  PLUMB_ASSIGN_OR_RETURN(config.family, StringField(json, "model_type", ""));
  if (config.family != "llama" && config.family != "qwen2") {
    return WrongField("model_type", "\"llama\" or \"qwen2\"", json["model_type"]);
  }
  config.qkv_bias = config.family == "qwen2";
  PLUMB_RETURN_IF_ERROR(MustBeOff(json, "attention_bias"));
  PLUMB_RETURN_IF_ERROR(MustBeOff(json, "mlp_bias"));
  PLUMB_RETURN_IF_ERROR(MustBeOff(json, "use_sliding_window"));
  if (const Json* act = FindField(json, "hidden_act"); act != nullptr && *act != "silu") {
    return WrongField("hidden_act", "\"silu\"", *act);
  }
  return absl::OkStatus();
}

absl::Status ReadSizes(const Json& json, ModelConfig& config) {
  PLUMB_RETURN_IF_ERROR(ReadInteger(json, "num_hidden_layers", 1, 4096, config.num_layers));
  PLUMB_RETURN_IF_ERROR(ReadInteger(json, "num_attention_heads", 1, 4096, config.num_heads));
  PLUMB_RETURN_IF_ERROR(ReadInteger(json, "hidden_size", 1, kMaxSize, config.hidden_size));
  PLUMB_RETURN_IF_ERROR(
      ReadInteger(json, "intermediate_size", 1, kMaxSize, config.intermediate_size));
  PLUMB_RETURN_IF_ERROR(ReadInteger(json, "vocab_size", 1, kMaxSize, config.vocab_size));
  PLUMB_ASSIGN_OR_RETURN(config.max_context,
                         IntegerField(json, "max_position_embeddings", "", 1, kMaxContext));
  config.num_kv_heads = config.num_heads;
  if (FindField(json, "num_key_value_heads") != nullptr) {
    PLUMB_RETURN_IF_ERROR(ReadInteger(json, "num_key_value_heads", 1, 4096, config.num_kv_heads));
  }
  if (config.num_heads % config.num_kv_heads != 0) {
    return WrongField("num_key_value_heads",
                      absl::StrCat("a divisor of num_attention_heads ", config.num_heads),
                      json["num_key_value_heads"]);
  }
  if (FindField(json, "head_dim") != nullptr) {
    PLUMB_RETURN_IF_ERROR(ReadInteger(json, "head_dim", 2, 4096, config.head_dim));
  } else if (config.hidden_size % config.num_heads == 0) {
    config.head_dim = config.hidden_size / config.num_heads;
  } else {
    return WrongField("hidden_size",
                      absl::StrCat("a multiple of num_attention_heads ", config.num_heads),
                      json["hidden_size"]);
  }
  if (config.head_dim % 2 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("head_dim must be even for rotary embeddings, got ", config.head_dim));
  }
  return absl::OkStatus();
}

absl::Status ReadLlama3Scaling(const Json& json, RopeScaling& scaling) {
  const struct {
    const char* key;
    double* out;
  } fields[] = {{"factor", &scaling.factor},
                {"low_freq_factor", &scaling.low_freq_factor},
                {"high_freq_factor", &scaling.high_freq_factor},
                {"original_max_position_embeddings", &scaling.original_max_position}};
  for (const auto& field : fields) {
    const std::string path = absl::StrCat("rope_scaling.", field.key);
    const Json* value = FindField(json, field.key);
    if (value == nullptr) return absl::InvalidArgumentError(absl::StrCat(path, " is missing"));
    PLUMB_ASSIGN_OR_RETURN(*field.out, PositiveNumber(*value, path));
  }
  if (scaling.high_freq_factor <= scaling.low_freq_factor) {
    return WrongField("rope_scaling.high_freq_factor",
                      absl::StrCat("above low_freq_factor ", scaling.low_freq_factor),
                      json["high_freq_factor"]);
  }
  return absl::OkStatus();
}

// Older configs keep rope_theta and rope_scaling apart, newer ones both in rope_parameters.
absl::Status ReadRope(const Json& json, ModelConfig& config) {
  const Json* theta = FindField(json, "rope_theta");
  const Json* rope = FindField(json, "rope_parameters");
  if (rope == nullptr) rope = FindField(json, "rope_scaling");
  if (rope != nullptr) {
    if (!rope->is_object()) return WrongField("rope_scaling", "an object or null", *rope);
    if (const Json* inner = FindField(*rope, "rope_theta")) theta = inner;
    const Json* type = FindField(*rope, "rope_type");
    if (type == nullptr) type = FindField(*rope, "type");
    if (type == nullptr) return absl::InvalidArgumentError("rope_scaling.rope_type is missing");
    if (*type == "llama3") {
      config.rope_scaling.type = "llama3";
      PLUMB_RETURN_IF_ERROR(ReadLlama3Scaling(*rope, config.rope_scaling));
    } else if (*type != "default") {
      return WrongField("rope_scaling.rope_type", "\"default\" or \"llama3\"", *type);
    }
  }
  if (theta != nullptr) {
    PLUMB_ASSIGN_OR_RETURN(config.rope_theta, PositiveNumber(*theta, "rope_theta"));
  }
  return absl::OkStatus();
}

absl::Status ReadTokenIds(const Json& json, ModelConfig& config) {
  const int64_t highest = config.vocab_size - 1;
  if (const Json* bos = FindField(json, "bos_token_id")) {
    PLUMB_ASSIGN_OR_RETURN(const int64_t id, AsInteger(*bos, "bos_token_id", 0, highest));
    config.bos_token_id = static_cast<int32_t>(id);
  }
  const Json* eos = FindField(json, "eos_token_id");
  if (eos == nullptr) return absl::InvalidArgumentError("eos_token_id is missing");
  const Json list = eos->is_array() ? *eos : Json::array({*eos});
  if (list.empty()) return WrongField("eos_token_id", "an id or a list of ids", *eos);
  for (const Json& entry : list) {
    PLUMB_ASSIGN_OR_RETURN(const int64_t id, AsInteger(entry, "eos_token_id", 0, highest));
    config.eos_token_ids.push_back(static_cast<int32_t>(id));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelConfig> ParseModelConfig(const std::string& text) {
  PLUMB_ASSIGN_OR_RETURN(const Json json, ParseJsonObject(text, "config.json"));
  ModelConfig config;
  PLUMB_RETURN_IF_ERROR(ReadFamily(json, config));
  PLUMB_RETURN_IF_ERROR(ReadSizes(json, config));
  PLUMB_RETURN_IF_ERROR(ReadRope(json, config));
  PLUMB_RETURN_IF_ERROR(ReadTokenIds(json, config));
  if (const Json* eps = FindField(json, "rms_norm_eps")) {
    PLUMB_ASSIGN_OR_RETURN(config.rms_norm_eps, PositiveNumber(*eps, "rms_norm_eps"));
  }
  PLUMB_ASSIGN_OR_RETURN(config.tied_embeddings, BoolField(json, "tie_word_embeddings", false));
  return config;
}

}  // namespace plumbline
