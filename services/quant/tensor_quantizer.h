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
// Not thread safe; one instance a tensor.
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
// (kPromptLast: a wave shows the quantizer the whole prompt); generated tokens come one by one.
enum class Phase { kPromptLast, kDecode };

// Half-open range of rows (token positions) whose stored values this call changed or finished.
struct RowRange {
  int64_t begin = 0;
  int64_t end = 0;
};

// Statistics of a capture, for Scope::kCalibrated. Flat channels; owned by the caller, who keeps it
// alive as long as the quantizer.
struct Calibration {
  std::vector<float> channel_absmax;  // [kv_heads * head_dim]
  std::vector<float> channel_min;     // [kv_heads * head_dim]
  std::vector<float> channel_max;     // [kv_heads * head_dim]
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

  // Elements seen so far, and how many of them are held quantized now (the share of attended K and V
  // that each result prints).
  virtual int64_t elements_total() const = 0;
  virtual int64_t elements_quantized() const = 0;
};

}  // namespace plumbline
