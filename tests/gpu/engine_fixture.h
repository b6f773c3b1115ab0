// Runs requests through the GPU engine and the CPU engine over tiny random bundles.
#pragma once

#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "services/common/digest.h"
#include "services/engine/cuda/cuda_engine.h"
#include "tests/gpu/small_run.h"
#include "tests/unit/engine/engine_fixture.h"

namespace plumbline::testing {

// Sizes that the GPU's kernels have: products in steps of 8, heads of 64 and more.
inline TinyModel GpuModel() {
  TinyModel model;
  model.head_dim = 64;
  model.hidden = 256;
  model.inner = 448;
  model.vocab = 504;
  return model;
}
inline TinyModel GpuQwen() {
  TinyModel model = GpuModel();
  model.family = "qwen2";
  model.kv_heads = 1;
  return model;
}
inline TinyModel GpuUntied() {
  TinyModel model = GpuModel();
  model.tied = false;
  model.llama3_rope = true;
  model.heads = 6;
  model.kv_heads = 3;
  model.head_dim = 128;
  model.layers = 3;
  return model;
}

struct GpuVariant {
  const char* name;
  TinyModel model;
  ComputeDtype dtype;
};
inline void PrintTo(const GpuVariant& variant, std::ostream* out) { *out << variant.name; }

inline std::vector<GpuVariant> GpuVariants() {
  if (SmallRun()) return {{"qwen2_bf16", GpuQwen(), ComputeDtype::kBf16}};
  return {{"llama_fp32", GpuModel(), ComputeDtype::kF32},
          {"llama_bf16", GpuModel(), ComputeDtype::kBf16},
          {"qwen2_fp32", GpuQwen(), ComputeDtype::kF32},
          {"qwen2_bf16", GpuQwen(), ComputeDtype::kBf16},
          {"untied_llama3_fp32", GpuUntied(), ComputeDtype::kF32},
          {"untied_llama3_bf16", GpuUntied(), ComputeDtype::kBf16}};
}

struct GpuOptions {
  int device = 0;
  ComputeDtype dtype = ComputeDtype::kF32;
  int max_running = 256;
  int chunk_rows = 256;
  int64_t wave_rows = 2048;
  int64_t max_positions = 0;  // 0 = the default
  int64_t pool_bytes = int64_t{1} << 30;
  int64_t prefix_bytes = int64_t{1} << 26;
  int64_t measure_bytes = int64_t{1} << 26;
};

inline absl::StatusOr<std::unique_ptr<Engine>> TryOpenGpu(const std::string& dir,
                                                          const GpuOptions& gpu = {}) {
  EngineOptions options;
  options.bundle_dir = dir;
  options.dtype = gpu.dtype;
  options.max_running = gpu.max_running;
  options.kv_pool_bytes = gpu.pool_bytes;
  options.prefix_cache_bytes = gpu.prefix_bytes;
  options.threads = 4;
  CudaOptions cuda;
  cuda.device = gpu.device;
  cuda.chunk_rows = gpu.chunk_rows;
  cuda.wave_rows = gpu.wave_rows;
  if (gpu.max_positions != 0) cuda.max_positions = gpu.max_positions;
  cuda.measure_bytes = gpu.measure_bytes;
  return CreateCudaEngine(options, cuda);
}

inline std::unique_ptr<Engine> OpenGpu(const TinyBundle& bundle, const GpuOptions& gpu = {}) {
  auto engine = TryOpenGpu(bundle.dir(), gpu);
  EXPECT_THAT(engine, IsOk());
  return engine.ok() ? std::move(engine).value() : nullptr;
}

inline std::unique_ptr<Engine> OpenCpu(const TinyBundle& bundle, ComputeDtype dtype) {
  EngineOptions options;
  options.dtype = dtype;
  return OpenEngine(bundle, options);
}

// All formats that the CPU engine's invariance is shown on, and what else the grammar has.
inline const std::vector<std::string>& GpuPlans() {
  static const auto& plans = *new std::vector<std::string>{
      "*:fp",
      "*:int4.asym.token",
      "*:fp,2:int3.sym.tensor",
      "*:int3.sym.group16",
      "*:int4.sym.channel.prompt",
      "*:int8.asym.token.post|fp",
      "*:fp|fp8_e4m3",
      "*:int4.affine.channel.window16x8.post.perhead.exact|"
      "int4.affine.group16.window16.perhead.exact",
      "*:int3.sym.tensor",
      "*:int8.asym.token.post|fp8_e4m3",
      "*:int3.asym.token.sink4.hadamard",
      "*:int4.asym.token.exact",
      "*:int2.asym.tensor.prompt|int4.sym.tensor.perhead",
      "*:int4.affine.channel.window16x8|int4.affine.token.window16.sink4",
      "*:int5.asym.token.native.s16|int6.affine.group32.sb16",
      "*:fp8_e5m2.torchcast|int8.sym.tensor.ch(1+5+9)",
      "*:int2.sym.tensor.heads(0)",
      "*:fp,1:int4.sym.tensor.exact.post"};
  return plans;
}

// How many sequences differ in any bit that is compared.
inline int Differences(const std::map<uint64_t, SequenceResult>& a,
                       const std::map<uint64_t, SequenceResult>& b) {
  EXPECT_EQ(a.size(), b.size());
  int different = 0;
  for (const auto& [id, result] : a) {
    const auto it = b.find(id);
    const bool same = it != b.end() && result.tokens == it->second.tokens &&
                      result.logit_digest == it->second.logit_digest &&
                      result.finish_reason == it->second.finish_reason &&
                      result.nll_sum == it->second.nll_sum &&
                      result.kv_elements == it->second.kv_elements &&
                      result.kv_elements_quantized == it->second.kv_elements_quantized;
    if (same) continue;
    if (++different <= 5) std::printf("sequence %d differs\n", static_cast<int>(id));
  }
  return different;
}

// One digest of all that Differences compares, to hold runs of two processes against each other.
inline std::string DigestOf(const std::map<uint64_t, SequenceResult>& results) {
  DigestBuilder digest("results/1");
  for (const auto& [id, result] : results) {
    digest.Add("id", static_cast<int64_t>(id))
        .Add("tokens", {reinterpret_cast<const char*>(result.tokens.data()),
                        result.tokens.size() * sizeof(int32_t)})
        .Add("logits", result.logit_digest)
        .Add("finish", FinishReasonName(result.finish_reason))
        .Add("nll", result.nll_sum)
        .Add("elements", result.kv_elements)
        .Add("quantized", result.kv_elements_quantized);
  }
  return digest.Finish();
}

// Prints why and skips the test where there is no GPU.
#define SKIP_WITHOUT_GPU()                      \
  do {                                          \
    if (::plumbline::CountGpus() == 0) {        \
      std::puts("SKIPPED: no GPU");             \
      GTEST_SKIP() << "no GPU on this machine"; \
    }                                           \
  } while (false)

}  // namespace plumbline::testing
