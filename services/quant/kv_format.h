// The KV-cache format of one tensor (the keys or the values of one layer), and the plan that gives
// every layer its pair. The text grammar is in plan_parser.h; the formulas are in
// kernels/quantize.h.
//
// Shapes: a key or value tensor is x[token, kv_head, channel]; its flat channel index is
// kv_head * head_dim + channel.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/common/ids.h"

namespace plumbline {

enum class KvType { kFp, kInt2, kInt3, kInt4, kInt5, kInt6, kInt8, kFp8E4m3, kFp8E5m2 };
enum class Symmetry { kNone, kSym, kAsym, kAffine };
enum class Granularity { kNone, kTensor, kToken, kChannel, kGroup };
enum class Scope { kStep, kPrompt, kCalibrated, kWindow };
enum class HeadGrouping { kJoint, kPerHead };
enum class RopePlace { kPreRope, kPostRope };
enum class PrefillReads { kSeen, kExact };
enum class Arithmetic { kF32, kNative };
enum class ScaleType { kF32, kF16, kBf16 };
enum class Fp8Overflow { kSaturate, kTorchCast };

// How one tensor is stored. Value type. Fields that do not apply to `type` hold their defaults, so
// that equal formats compare equal.
//
// calibration_digest: 8 to 64 lower-case hexadecimal digits, the start of the capture's SHA-256.
// Two spellings of one capture are two formats: write out all 64 before keying anything by the
// text.
struct TensorFormat {
  KvType type = KvType::kFp;
  Symmetry symmetry = Symmetry::kNone;
  Granularity granularity = Granularity::kNone;
  int32_t group_size = 0;  // channels of one token; with kGroup only
  Scope scope = Scope::kStep;
  std::string calibration_digest;  // with kCalibrated only: digest of the capture
  int32_t window = 0;              // tokens kept in fp; with kWindow only
  int32_t window_flush = 0;        // tokens that share statistics when a full window is
                                   // flushed; 0 = sliding window; with kWindow only
  HeadGrouping heads = HeadGrouping::kJoint;
  RopePlace place = RopePlace::kPreRope;  // keys only; values are not rotated: kPreRope
  PrefillReads prefill = PrefillReads::kSeen;
  Arithmetic arithmetic = Arithmetic::kF32;
  ScaleType scale_type = ScaleType::kF32;
  std::vector<int32_t> select_heads;     // sorted, unique; empty = all
  std::vector<int32_t> select_channels;  // flat, sorted, unique; empty = all
  int32_t sink_tokens = 0;               // the first N tokens stay fp
  bool hadamard = false;                 // rotate the channels of each head
  Fp8Overflow fp8_overflow = Fp8Overflow::kSaturate;

  bool is_fp() const { return type == KvType::kFp; }
  bool is_int() const;
  bool is_fp8() const { return type == KvType::kFp8E4m3 || type == KvType::kFp8E5m2; }
  int bits() const;  // 2..8 for codes; 0 for fp, whose width is the compute dtype's
  // Whether parameters are formed from the data (int) or from a calibration (fp8), so are stored.
  bool has_scales() const { return is_int() || (is_fp8() && scope == Scope::kCalibrated); }
  // Whether a stored row depends on that row of the sequence alone: no statistics over several
  // rows, none from outside, no window that later rows move.
  bool rows_stand_alone() const;
  friend bool operator==(const TensorFormat&, const TensorFormat&) = default;
};

// Fields without effect set to their defaults: perhead where statistics never cross heads (channel;
// fp8 without calibration), everything for fp, place for values. Equal behaviour, one spelling.
enum class TensorRole { kKey, kValue };
TensorFormat NormalizedFormat(TensorFormat format, TensorRole role);

// The combination rules of the grammar, for formats that were not parsed (from a message, say).
// InvalidArgument names the option. paper_quirks allows asym.channel.step.
absl::Status CheckFormat(const TensorFormat& format, bool paper_quirks = false);

struct LayerFormat {
  TensorFormat key;
  TensorFormat value;
  friend bool operator==(const LayerFormat&, const LayerFormat&) = default;
};

// One rule of a plan's text. Layers empty = all ("*").
struct PlanRule {
  std::vector<int32_t> layers;  // sorted, unique
  LayerFormat format;
  friend bool operator==(const PlanRule&, const PlanRule&) = default;
};

// An ordered list of rules; later rules win. A Plan need not know the model: Resolve binds it.
class Plan {
 public:
  Plan() = default;
  explicit Plan(std::vector<PlanRule> rules) : rules_(std::move(rules)) {}
  static Plan AllFp();

  const std::vector<PlanRule>& rules() const { return rules_; }

  // The normalized format of every layer. InvalidArgument when a layer is not covered, when a rule
  // names a layer, head or channel that the model does not have, or when hadamard meets a head_dim
  // that is no power of two; the message carries the rule and the model's size. Selecting all heads
  // or all channels is the same as selecting none.
  absl::StatusOr<std::vector<LayerFormat>> Resolve(int num_layers, int num_kv_heads,
                                                   int head_dim) const;

 private:
  std::vector<PlanRule> rules_;
};

// The one canonical spelling for a model of `num_layers` layers: equal resolved plans give equal
// texts, so cells may be keyed by it. A resolved plan is one LayerFormat a layer.
std::string CanonicalPlanText(const std::vector<LayerFormat>& layers);
// Canonical option order, defaults left out: type, symmetry, granularity, scope, place, heads,
// prefill, arith, scale, select, sink, hadamard, fp8 overflow.
std::string FormatText(const TensorFormat& format);
std::string FormatText(const LayerFormat& format);  // "key|value", or one text for both
std::string RuleText(const PlanRule& rule);
// SHA-256 of the canonical text.
std::string PlanDigest(const std::vector<LayerFormat>& layers);

// How many of a sequence's first `tokens` tokens are held quantized: all but the sinks, and with a
// window all that have left it (tensor_quantizer.h). 0 for fp.
int64_t QuantizedTokens(const TensorFormat& format, int64_t tokens);

// Exact size of what one sequence of `tokens` tokens stores under the plan, without padding: codes
// + scales + zeros/minima + tokens kept in fp (fp_bytes a value: 2 for bf16). With scope step each
// decoded token brings its own parameters; the first `prompt_tokens` tokens are one step (< 0:
// all).
struct KvBytes {
  double codes = 0;
  double scales = 0;
  double fp = 0;
  double total() const { return codes + scales + fp; }
};
KvBytes KvBytesOfPlan(const std::vector<LayerFormat>& layers, int num_kv_heads, int head_dim,
                      int64_t tokens, int fp_bytes, int64_t prompt_tokens = -1);

}  // namespace plumbline
