// The quantizer of one tensor (keys or values of one layer of one sequence), with its state across
// tokens: frozen statistics (prompt), tables (calibrated), fp windows, sinks.
//
// It works in place on the sequence's own cache buffer, so the engine's "simulated" storage and the
// quantsim service run the same code. The caller writes raw values into rows, then calls Append;
// rows come back dequantized. Rows that a window keeps in fp are rewritten by a later Append.
//
//   auto quantizer = TensorQuantizer::Create(format, {.kv_heads = 3, .head_dim = 64,
//                                                     .dtype = KvDtype::kF32}, nullptr);
//   memcpy(cache + first * row_bytes, k, tokens * row_bytes);
//   RowRange changed = (*quantizer)->Append(cache, first, tokens, Phase::kPromptLast);
//
// When rows are quantized, by scope; the first sink<N> rows of a sequence stay fp and take part in
// no statistics, and row numbers below count from the first row after them:
//   step        at once. Statistics of tensor and channel: all rows of the prompt together, then
//   each
//               decoded row alone.
//   prompt      at once. Statistics from the first call that has a row behind the sinks, whole
//               (also its "returned unchanged" rule); later values clip.
//   calibrated  at once, by the statistics given to Create.
//   window<R>   (KIVI's values) after every call exactly the newest min(R, rows) rows are fp.
//   window<R>xG (KIVI's keys) after every call rows [0, floor(rows / R) * R) are quantized, tensor
//   and
//               channel statistics formed over aligned blocks of G rows; the newest rows mod R are
//               fp. So a window that fills up is flushed at once and whole, at prefill as in
//               decode.
// Attention that runs after Append therefore reads the state after the update, as in algorithm 1 of
// the KIVI paper (its code flushes after the attention of the same step, one step later).
//
// The caller decides what the quantizer sees: for place pre the rows are keys before RoPE, for post
// after it. For prefill exact the caller lets the prompt's attention read the raw rows and calls
// Append afterwards; the quantizer itself does not look at `prefill` or `place`.
//
// Append allocates nothing once a thread has served a tensor of this size. Not thread safe; one
// instance a tensor; instances may be used from different threads.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "services/quant/kv_format.h"

namespace plumbline {

enum class KvDtype { kF32, kBf16 };  // bf16 as raw uint16_t
inline int KvDtypeBytes(KvDtype dtype) { return dtype == KvDtype::kF32 ? 4 : 2; }

struct TensorShape {
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  KvDtype dtype = KvDtype::kF32;
  int64_t flat_channels() const { return int64_t{kv_heads} * head_dim; }
};

// Which part of a sequence the appended rows are. A whole prompt arrives in one Append
// (kPromptLast: a wave shows the quantizer the whole prompt). Rows appended as kDecode count as one
// step each, however many come in one call.
enum class Phase { kPromptLast, kDecode };

// Half-open range of rows (token positions) that may differ from before the call: the new rows and,
// when a window let older ones go, everything from the oldest of those on.
struct RowRange {
  int64_t begin = 0;
  int64_t end = 0;
};

// Statistics of a capture, for Scope::kCalibrated, taken where the format quantizes (before or
// after RoPE). Flat channels, finite. Read by Create only.
struct Calibration {
  std::vector<float> channel_absmax;  // [kv_heads * head_dim]
  std::vector<float> channel_min;     // [kv_heads * head_dim]
  std::vector<float> channel_max;     // [kv_heads * head_dim]
};

// What was stored for some rows, for those who need more than the dequantized values.
struct QuantizedBlock {
  int64_t first_token = 0;  // row of the first
  int64_t tokens = 0;
  int32_t lanes = 0;               // quantized channels, ascending
  const uint8_t* codes = nullptr;  // [tokens, lanes]; encoding in kernels/quantize.h
  bool new_parameters = true;      // false: same parameters as the previous block of this quantizer
  int32_t groups = 0;
  const int32_t* group_begin = nullptr;  // [groups + 1] first lane of each group, and `lanes`
  int64_t parameters = 0;                // [tokens (granularities token and group) or 1, groups]
  const float* scale = nullptr;          // [parameters]
  const float* zero = nullptr;  // [parameters] zero points or minima; null where there are none
};
class QuantObserver {
 public:
  virtual ~QuantObserver() = default;
  // Pointers are valid during the call.
  virtual void OnBlock(const QuantizedBlock& block) = 0;
};

class TensorQuantizer {
 public:
  virtual ~TensorQuantizer() = default;

  // InvalidArgument when the format does not fit the shape (group, selected heads or channels,
  // missing calibration); the message carries both.
  static absl::StatusOr<std::unique_ptr<TensorQuantizer>> Create(const TensorFormat& format,
                                                                 const TensorShape& shape,
                                                                 const Calibration* calibration);

  // rows: base of the buffer [>= first + tokens, kv_heads, head_dim] of the shape's dtype, dense.
  // Rows [first, first + tokens) hold raw values; first is the number of tokens appended before.
  // Non-finite values pass through as non-finite (never turned into a number).
  virtual RowRange Append(void* rows, int64_t first, int64_t tokens, Phase phase) = 0;

  // Before the first Append: rows [0, tokens) of the buffer hold what another quantizer of the same
  // format left there. Only for formats whose rows stand alone.
  virtual void Adopt(int64_t tokens) = 0;

  // Null (the default) for none. Codes are computed only for an observer. Not owned.
  virtual void SetObserver(QuantObserver* observer) = 0;

  // Elements seen so far, and how many of them are held quantized now (the share of attended K and
  // V that each result prints).
  virtual int64_t elements_total() const = 0;
  virtual int64_t elements_quantized() const = 0;
};

}  // namespace plumbline
