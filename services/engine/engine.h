// The generation engine: many sequences, each with its own KV plan, in one continuous batch whose
// arithmetic is batch-invariant: a sequence's tokens and logit bits depend on its request and the
// numerics class alone, never on what shares the batch, its order or its occupancy.
//
// This header is the engine's public edge: no exception leaves it, everything ends as absl::Status.
// There is one implementation a device (CPU: engine/cpu; GPU behind the same interface).
//
//   auto engine = CreateCpuEngine({.bundle_dir = "models/smol", .threads = 2});
//   (*engine)->Submit({.id = 1, .prompt_tokens = ids, .layers = formats, .max_new_tokens = 48});
//   while ((*engine)->active() > 0) {
//     auto finished = (*engine)->Step();            // StatusOr<vector<SequenceResult>>
//   }
//
// Not thread safe: one thread drives an engine.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/quant/kv_format.h"
#include "services/quant/tensor_quantizer.h"

namespace plumbline {

enum class ComputeDtype { kF32, kBf16 };

struct EngineOptions {
  std::string bundle_dir;  // a model bundle (model_bundle.h)
  ComputeDtype dtype = ComputeDtype::kF32;
  int threads = 0;                           // 0 = all cores of this process's affinity
  int64_t kv_pool_bytes = int64_t{4} << 30;  // limit on cache memory of running sequences
  int max_running = 256;                     // sequences that share a batch at most
  // Memory for unquantized prompt states that later sequences with the same prompt start from (a
  // layer ablation computes them once). Bits do not depend on it. 0 = none.
  int64_t prefix_cache_bytes = int64_t{512} << 20;
  bool verify_digests = true;  // SHA-256 of every weight file before use
};

// Sizes a planner or quantizer needs.
struct ModelShape {
  std::string family;  // "llama" or "qwen2"
  int num_layers = 0;
  int num_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  int hidden_size = 0;
  int intermediate_size = 0;
  int vocab_size = 0;
  int64_t max_context = 0;  // tokens
};

struct Sampling {
  double temperature = 0;  // 0 = greedy
  double top_p = 1;        // (0, 1]
  // Gumbel noise is keyed by (seed, stream, position), never by the plan, so that a baseline and a
  // condition share their randomness. `stream` digests prompt id and sample index.
  uint64_t seed = 0;
  uint64_t stream = 0;
};

enum class FinishReason { kEos, kLength, kVerdict, kNonFinite };
const char* FinishReasonName(FinishReason reason);  // "eos" "length" "verdict" "nonfinite"

// Raw values of one layer's prompt keys (before RoPE) and values, for a capture.
struct CapturedLayer {
  LayerIndex layer;
  int64_t tokens = 0;
  std::vector<float> keys;     // [tokens, kv_heads, head_dim], before RoPE
  std::vector<float> values;   // [tokens, kv_heads, head_dim]
  std::vector<float> queries;  // [tokens, heads, head_dim], before RoPE
};

// Statistics of one tensor's prompt rows, as kernels/channel_stats.h defines them.
struct MeasuredTensor {
  std::vector<double> mean, squares;  // [kv_heads * head_dim]; squares: of the deviations, summed
  std::vector<float> min, max;        // [kv_heads * head_dim]
  std::vector<uint64_t> counts;       // [kv_heads, kernels::kStatsBins] of |x|
  bool operator==(const MeasuredTensor&) const = default;
};

// Statistics of the rows that a CapturedLayer would hold. They depend on those rows alone.
struct MeasuredLayer {
  LayerIndex layer;
  int64_t tokens = 0;
  MeasuredTensor keys, values;
  bool operator==(const MeasuredLayer&) const = default;
};

struct SequenceRequest {
  uint64_t id = 0;                     // caller's, unique among active sequences
  std::vector<int32_t> prompt_tokens;  // with BOS where the model has one
  std::vector<LayerFormat> layers;     // resolved plan, one a layer
  // The first N prompt tokens also begin other requests (a system turn): their states may be kept
  // and reused under the same plan. Bits do not depend on it. 0 = none.
  int stem_tokens = 0;
  int max_new_tokens = 256;
  std::vector<int32_t> stop_tokens;  // EOS ids; not part of the answer
  Sampling sampling;
  uint64_t jitter_seed = 0;                // 0 = none; else seeded 1-ulp noise on K and V
  std::vector<int32_t> forced_tokens;      // feed these as the answer, report regret
  bool want_steps = false;                 // fill SequenceResult::steps
  bool want_logit_digest = false;          // SHA-256 over every step's logit bits
  int first_top = 0;                       // most probable first answer tokens to report
  int score_from = -1;                     // >= 0: NLL of prompt tokens at index >= score_from
  std::vector<LayerIndex> capture_layers;  // prompt K, V, Q of these layers
  std::vector<LayerIndex> measure_layers;  // statistics of prompt K and V of these layers
  // Called with each new answer token; returns true when the verdict is final (the answer ends with
  // that token and FinishReason::kVerdict). Null = run to the end.
  std::function<bool(int32_t token)> verdict_decided;
  // Per layer (key, value) statistics for calibrated formats; null where none. Not owned.
  std::vector<std::pair<const Calibration*, const Calibration*>> calibrations;
};

struct StepTrace {
  int32_t top1 = 0, top2 = 0;  // token ids
  float top1_logit = 0, top2_logit = 0;
  float regret = 0;  // max logit - logit of the token fed (forced runs)
};

struct TopToken {
  int32_t token = 0;
  float log_probability = 0;  // natural, of the softmax at temperature 1
};

struct SequenceResult {
  uint64_t id = 0;
  std::vector<int32_t> tokens;  // the answer without the stop token
  FinishReason finish_reason = FinishReason::kLength;
  std::vector<StepTrace> steps;
  std::string logit_digest;  // 64 hex, if wanted
  // SequenceRequest::first_top of them, most probable first, ties by the lower id; whatever was
  // forced. Empty where those logits are not finite.
  std::vector<TopToken> first_top;
  double nll_sum = 0;  // nats, if score_from >= 0
  int64_t nll_tokens = 0;
  int64_t kv_elements = 0;              // K and V elements attended at the last step
  int64_t kv_elements_quantized = 0;    // of them, held quantized
  std::vector<CapturedLayer> captured;  // by layer
  std::vector<MeasuredLayer> measured;  // by layer
};

struct EngineStats {
  int64_t steps = 0;
  int64_t prompt_tokens = 0;
  int64_t decoded_tokens = 0;
  int64_t reused_rows = 0;   // of prompt_tokens: first rows of a prompt that were held already
  int64_t padded_slots = 0;  // slots of fixed chunks that held no token (a GPU's)
  double matmul_seconds = 0;
  double attention_seconds = 0;
  double quantize_seconds = 0;
  double other_seconds = 0;
};

class Engine {
 public:
  virtual ~Engine() = default;
  virtual const ModelShape& shape() const = 0;

  // What decides bits: engine numerics version, device, dtype, how products are summed, libraries
  // that take part. Equal texts promise equal bits.
  virtual const std::string& numerics_class() const = 0;

  // InvalidArgument: prompt empty or longer than the context, token id out of range, plan of
  // another size, ... with the values. ResourceExhausted: the sequence alone exceeds kv_pool_bytes.
  // An accepted sequence may wait for room.
  virtual absl::Status Submit(SequenceRequest request) = 0;
  // Drops a waiting or running sequence; no result follows. NotFound if it is not active.
  virtual absl::Status Cancel(uint64_t id) = 0;
  // One step over the batch; returns the sequences that finished in it. An error concerns the
  // engine as a whole (Internal; ResourceExhausted: out of memory); work of all sequences is lost
  // with it.
  virtual absl::StatusOr<std::vector<SequenceResult>> Step() = 0;
  virtual int active() const = 0;  // waiting + running
  virtual const EngineStats& stats() const = 0;
};

// NotFound / InvalidArgument / DataLoss (digest mismatch, truncated weights) with file and values.
absl::StatusOr<std::unique_ptr<Engine>> CreateCpuEngine(const EngineOptions& options);

}  // namespace plumbline
