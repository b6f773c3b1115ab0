// Time of LaunchKvWrite in a generated token's step: 512 sequences, the shape of Llama-3.1-8B, one
// launch a layer, recorded as one CUDA graph. JSON on standard output.
#include <algorithm>
#include <cstdio>
#include <numeric>

#include "kernels/cuda/kv_write.h"
#include "services/quant/plan_parser.h"
#include "tests/gpu/quantize_formats.h"

namespace plumbline {
namespace {

using gpu_test::Check;
using gpu_test::DeviceArray;

constexpr int kLayers = 32;
constexpr int kRows = 512;
constexpr int kReplays = 50;

struct Bench {
  Bench() {
    args.dims.layers = kLayers;
    args.dims.heads = 32;
    args.dims.kv_heads = 8;
    args.dims.head_dim = 128;
    args.step.max_rows = kRows;
    args.step.max_runs = kRows;
    args.step.max_pages = 32;
    const int64_t page = int64_t{kLayers} * 2 * 1024 * cuda::kPageTokens;
    gpu_test::Rng rng(3);
    const int64_t qkv_values = int64_t{kRows} * args.dims.qkv_dim();
    std::vector<uint16_t> host(qkv_values);
    for (uint16_t& x : host) x = Bf16FromFloat(rng.Normal());
    qkv = DeviceArray<uint16_t>(host);
    pool = DeviceArray<uint16_t>(page * kRows * 2);
    Check(cudaMemset(pool.data(), 0, pool.size() * 2), "cudaMemset");
    std::vector<int32_t> row_run(kRows), positions(kRows, 300), pages, raw;
    std::iota(row_run.begin(), row_run.end(), 0);
    std::vector<cuda::Run> all(kRows);
    for (int i = 0; i < kRows; ++i) {
      all[i].first_row = i;
      all[i].rows = 1;
      all[i].first_position = 300;
      all[i].sequence = i;
      pages.insert(pages.end(), 32, i);
      raw.insert(raw.end(), 32, kRows + i);
    }
    tables[0] = DeviceArray<int32_t>(row_run);
    tables[1] = DeviceArray<int32_t>(positions);
    tables[2] = DeviceArray<int32_t>(pages);
    tables[3] = DeviceArray<int32_t>(raw);
    runs = DeviceArray<cuda::Run>(all);
    plan = DeviceArray<int32_t>(std::vector<int32_t>(2 * kLayers, 0));
    const std::vector<float> angles(1024 * 64, 0.5f);
    cos = DeviceArray<float>(angles);
    sin = DeviceArray<float>(angles);
    frozen = DeviceArray<float>(std::vector<float>(int64_t{kRows} * kLayers * 4 * 1024, 0.1f));
    args.step.row_run = tables[0].data();
    args.step.row_position = tables[1].data();
    args.step.pages = tables[2].data();
    args.step.raw_pages = tables[3].data();
    args.step.runs = runs.data();
    args.step.plan_rules = plan.data();
    args.step.frozen = frozen.data();
    args.step.max_groups = 1024;
    args.pool = {pool.data(), page};
    args.rope = {cos.data(), sin.data()};
    args.qkv = qkv.data();
    Check(cudaStreamCreate(&stream), "cudaStreamCreate");
  }

  // Microseconds of one layer's launches: median over replays of the graph.
  double Measure(const char* text) {
    const TensorShape shape{8, 128, KvDtype::kBf16};
    const auto format = ParseFormat(text, {.paper_quirks = true});
    const auto bound = BindDeviceRule(*format, TensorRole::kKey, shape, nullptr);
    const gpu_test::UploadedRule rule(*bound);
    const DeviceArray<cuda::TensorRule> rules(std::vector<cuda::TensorRule>{rule.rule});
    args.step.rules = rules.data();
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    Check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), "capture");
    for (args.layer = 0; args.layer < kLayers; ++args.layer) {
      Check(cuda::LaunchKvWrite(args, stream), "LaunchKvWrite");
    }
    Check(cudaStreamEndCapture(stream, &graph), "capture end");
    Check(cudaGraphInstantiate(&exec, graph, 0), "instantiate");
    cudaEvent_t begin, end;
    Check(cudaEventCreate(&begin), "event");
    Check(cudaEventCreate(&end), "event");
    std::vector<float> times;
    for (int i = 0; i < kReplays; ++i) {
      Check(cudaEventRecord(begin, stream), "record");
      Check(cudaGraphLaunch(exec, stream), "launch");
      Check(cudaEventRecord(end, stream), "record");
      Check(cudaEventSynchronize(end), "step");
      times.push_back(0);
      Check(cudaEventElapsedTime(&times.back(), begin, end), "elapsed");
    }
    std::sort(times.begin(), times.end());
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
    cudaGraphExecDestroy(exec);
    cudaGraphDestroy(graph);
    return times[times.size() / 2] * 1000.0 / kLayers;
  }

  cuda::KvWrite args;
  DeviceArray<uint16_t> qkv, pool;
  DeviceArray<int32_t> tables[4], plan;
  DeviceArray<cuda::Run> runs;
  DeviceArray<float> cos, sin, frozen;
  cudaStream_t stream = nullptr;
};

int Main() {
  if (const std::string why = gpu_test::WhyNoGpu(); !why.empty()) {
    std::printf("SKIPPED: no GPU (%s)\n", why.c_str());
    return 77;
  }
  Bench bench;
  cudaDeviceProp device;
  Check(cudaGetDeviceProperties(&device, 0), "cudaGetDeviceProperties");
  std::printf("{\"device\": \"%s\", \"rows\": %d, \"microseconds_a_layer\": {", device.name, kRows);
  const char* separator = "";
  for (const char* text :
       {"fp", "int4.asym.token", "int3.sym.tensor", "int4.asym.group32", "int8.sym.token.perhead",
        "int4.sym.channel.prompt", "int4.asym.token.post", "int4.asym.token.hadamard", "fp8_e4m3",
        "int2.asym.token.window128", "int2.asym.channel.window128x32"}) {
    std::printf("%s\"%s\": %.2f", separator, text, bench.Measure(text));
    separator = ", ";
  }
  std::printf("}}\n");
  return 0;
}

}  // namespace
}  // namespace plumbline

int main() { return plumbline::Main(); }
