// Time and achieved bandwidth of the kernels of one layer, on the shape of Llama-3.1-8B with random
// values, as JSON on the standard output. kernel_bench.py adds torch's products to it.
#include <cublasLt.h>
#include <cuda_bf16.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/row_ops.h"
#include "kernels/cuda/sample.h"

namespace plumbline::cuda {
namespace {

void Check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
  exit(1);
}

__global__ void FillKernel(__nv_bfloat16* out, int64_t count, float spread) {
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += stride) {
    uint64_t z = (i + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    const int64_t sum = (z & 0xffff) + (z >> 16 & 0xffff) + (z >> 32 & 0xffff) + (z >> 48);
    out[i] = __float2bfloat16_rn(spread * (sum - 131070) / 37837.0f);
  }
}

__global__ void ReadKernel(const uint4* data, int64_t count, uint32_t* out) {
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  uint32_t sum = 0;
  int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  for (; i + 3 * stride < count; i += 4 * stride) {
    uint4 loaded[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) loaded[j] = __ldcs(data + i + j * stride);
#pragma unroll
    for (int j = 0; j < 4; ++j) sum += loaded[j].x ^ loaded[j].y ^ loaded[j].z ^ loaded[j].w;
  }
  if (sum == 0x12345678) *out = sum;
}

class Bytes {
 public:
  explicit Bytes(int64_t bytes) { Check(cudaMalloc(&data_, bytes), "memory"); }
  ~Bytes() { cudaFree(data_); }
  Bytes(const Bytes&) = delete;
  Bytes& operator=(const Bytes&) = delete;
  template <typename T = void>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_ = nullptr;
};

struct RandomBf16 : Bytes {
  RandomBf16(int64_t count, float spread) : Bytes(2 * count) {
    FillKernel<<<1024, 256>>>(as<__nv_bfloat16>(), count, spread);
    Check(cudaDeviceSynchronize(), "fill");
  }
};

template <typename T>
struct Uploaded : Bytes {
  explicit Uploaded(const std::vector<T>& values) : Bytes(values.size() * sizeof(T)) {
    Check(cudaMemcpy(as(), values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice),
          "upload");
  }
};

// Microseconds of one launch, the median of seven replays of a graph of `count`.
double Microseconds(int count, const std::function<void(int, cudaStream_t)>& launch) {
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  cudaEvent_t begin, end;
  Check(cudaStreamCreate(&stream), "stream");
  Check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), "capture");
  for (int i = 0; i < count; ++i) launch(i, stream);
  Check(cudaStreamEndCapture(stream, &graph), "capture");
  Check(cudaGraphInstantiate(&exec, graph, 0), "graph");
  Check(cudaEventCreate(&begin), "event");
  Check(cudaEventCreate(&end), "event");
  std::vector<double> times;
  for (int repeat = 0; repeat < 8; ++repeat) {
    Check(cudaEventRecord(begin, stream), "event");
    Check(cudaGraphLaunch(exec, stream), "graph");
    Check(cudaEventRecord(end, stream), "event");
    Check(cudaEventSynchronize(end), "graph");
    float milliseconds = 0;
    Check(cudaEventElapsedTime(&milliseconds, begin, end), "event");
    if (repeat > 0) times.push_back(milliseconds * 1000.0 / count);
  }
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  cudaStreamDestroy(stream);
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

bool first_line = true;
void Print(const std::string& name, double microseconds, double bytes,
           const std::string& more = "") {
  printf("%s  {\"name\": \"%s\", \"us\": %.2f, \"GB_per_s\": %.1f%s}", first_line ? "" : ",\n",
         name.c_str(), microseconds, bytes / microseconds / 1000, more.c_str());
  fflush(stdout);
  first_line = false;
}

constexpr int kHeads = 32, kKvHeads = 8, kHeadDim = 128, kHidden = 4096, kInner = 14336;
constexpr int kVocab = 128256;

void MeasureBandwidth() {
  constexpr int64_t kBytes = int64_t{4} << 30;
  RandomBf16 from(kBytes / 2, 1);
  Bytes to(kBytes), out(4);
  Print("copy 4 GiB (read + written)",
        Microseconds(4,
                     [&](int, cudaStream_t stream) {
                       Check(cudaMemcpyAsync(to.as(), from.as(), kBytes, cudaMemcpyDeviceToDevice,
                                             stream),
                             "copy");
                     }),
        2.0 * kBytes);
  Print("read 4 GiB",
        Microseconds(4,
                     [&](int, cudaStream_t stream) {
                       ReadKernel<<<132 * 8, 512, 0, stream>>>(from.as<uint4>(), kBytes / 16,
                                                               out.as<uint32_t>());
                       Check(cudaPeekAtLastError(), "read");
                     }),
        kBytes);
}

// `sequences` runs of `rows` rows each, the last of which sees `context` positions.
struct Heads {
  int queries = kHeads, keys = kKvHeads, channels = kHeadDim;
};

void MeasureAttention(const std::string& name, int sequences, int rows, int context, int layers,
                      Heads heads = {}, int block_heads = 0) {
  Attention args;
  args.block_heads = block_heads;
  ModelDims& dims = args.dims;
  dims.layers = layers;
  dims.heads = heads.queries;
  dims.kv_heads = heads.keys;
  dims.head_dim = heads.channels;
  const int pages = (context + kPageTokens - 1) / kPageTokens, total_rows = sequences * rows;
  args.pool.page_elements = int64_t{layers} * 2 * dims.kv_dim() * kPageTokens;
  RandomBf16 pool(args.pool.page_elements * pages * sequences, 1);
  RandomBf16 qkv(int64_t{total_rows} * dims.qkv_dim(), 1);
  Bytes out(int64_t{total_rows} * dims.q_dim() * 2);
  std::vector<int32_t> table(pages * sequences);
  for (size_t i = 0; i < table.size(); ++i) table[i] = static_cast<int32_t>(i);
  std::shuffle(table.begin(), table.end(), std::mt19937(1));
  std::vector<Run> runs(sequences + 1);
  std::vector<int32_t> row_run(total_rows), row_position(total_rows);
  for (int s = 0; s < sequences; ++s) {
    runs[s].first_row = s * rows;
    runs[s].rows = rows;
    runs[s].first_position = context - rows;
    runs[s].sequence = s;
    runs[s].prompt = rows > 1;
    for (int i = 0; i < rows; ++i) {
      row_run[s * rows + i] = s;
      row_position[s * rows + i] = context - rows + i;
    }
  }
  std::vector<float> angles(int64_t{context} * heads.channels / 2, 0.7f);
  Uploaded<int32_t> d_table(table), d_row_run(row_run), d_row_position(row_position);
  Uploaded<int32_t> plan_rules(std::vector<int32_t>(2 * layers, 0));
  Uploaded<TensorRule> rules(std::vector<TensorRule>(1));
  Uploaded<Run> d_runs(runs);
  Uploaded<float> d_angles(angles);
  args.scale = 1 / std::sqrt(static_cast<float>(heads.channels));
  args.step.max_rows = total_rows;
  args.step.max_runs = sequences + 1;
  args.step.max_pages = pages;
  args.step.row_run = d_row_run.as<int32_t>();
  args.step.row_position = d_row_position.as<int32_t>();
  args.step.runs = d_runs.as<Run>();
  args.step.pages = d_table.as<int32_t>();
  args.step.plan_rules = plan_rules.as<int32_t>();
  args.step.rules = rules.as<TensorRule>();
  args.pool.base = pool.as();
  args.rope = {d_angles.as<float>(), d_angles.as<float>()};
  args.qkv = qkv.as();
  args.out = out.as();
  args.max_context = 8192;
  const double time = Microseconds(32, [&](int i, cudaStream_t stream) {
    args.layer = i % layers;
    Check(LaunchAttention(args, stream), "attention");
  });
  const double kv_bytes = 4.0 * sequences * context * dims.kv_dim();
  Print(name, time, kv_bytes + 4.0 * total_rows * dims.q_dim());
}

void MeasureRowOps(int rows) {
  const std::string tail = ", " + std::to_string(rows) + " rows";
  RandomBf16 hidden(int64_t{rows} * kHidden, 1), added(int64_t{rows} * kHidden, 0.01f);
  RandomBf16 weight(kHidden, 1), gate_up(int64_t{rows} * 2 * kInner, 1);
  Bytes normed(int64_t{rows} * kHidden * 2), activated(int64_t{rows} * kInner * 2);
  Print("add + norm" + tail,
        Microseconds(64,
                     [&](int, cudaStream_t stream) {
                       Check(LaunchAddNorm(Dtype::kBf16, added.as(), hidden.as(), weight.as(),
                                           1e-5f, rows, kHidden, normed.as(), stream),
                             "norm");
                     }),
        8.0 * rows * kHidden);
  Print("silu * up" + tail,
        Microseconds(64,
                     [&](int, cudaStream_t stream) {
                       Check(LaunchSiluMul(Dtype::kBf16, gate_up.as(), rows, kInner, activated.as(),
                                           stream),
                             "silu");
                     }),
        6.0 * rows * kInner);
}

void MeasureSample(int rows, double temperature) {
  RandomBf16 logits(int64_t{rows} * kVocab, 3);
  std::vector<SampleTask> tasks(rows);
  for (int i = 0; i < rows; ++i) {
    tasks[i].active = tasks[i].choose = 1;
    tasks[i].temperature = temperature;
    tasks[i].seed = i;
    tasks[i].feed_slot = i;
  }
  Uploaded<SampleTask> d_tasks(tasks);
  Bytes outcomes(rows * sizeof(SampleOutcome)), fed(rows * 4);
  const std::string name = temperature > 0 ? "sample, Gumbel, " : "sample, greedy, ";
  Print(name + std::to_string(rows) + " rows",
        Microseconds(16,
                     [&](int, cudaStream_t stream) {
                       Check(LaunchSample(Dtype::kBf16, logits.as(), rows, kVocab,
                                          d_tasks.as<SampleTask>(), outcomes.as<SampleOutcome>(),
                                          fed.as<int32_t>(), stream),
                             "sample");
                     }),
        2.0 * rows * kVocab);
}

// Weights in turn, so that none stays in the L2.
void MeasureProduct(cublasLtHandle_t handle, const char* name, int rows, int in, int out) {
  const int64_t weights = int64_t{in} * out;
  const int copies = static_cast<int>(std::max<int64_t>(1, (int64_t{300} << 20) / (2 * weights)));
  RandomBf16 weight(weights * copies, 0.02f), x(int64_t{rows} * in, 1);
  Bytes y(int64_t{rows} * out * 2), workspace(32 << 20);
  for (int skip = 0; skip < 3; ++skip) {
    LinearFailure failure;
    const auto linear =
        Linear::Create(handle, Dtype::kBf16, rows, in, out, 32 << 20, &failure, skip);
    if (!linear) {
      fprintf(stderr, "%s\n", failure.text.c_str());
      return;
    }
    const double time = Microseconds(4 * copies, [&](int i, cudaStream_t stream) {
      Check(linear->Run(x.as(), weight.as<__nv_bfloat16>() + i % copies * weights, y.as(),
                        workspace.as(), stream),
            "product");
    });
    char more[200];
    snprintf(more, sizeof more,
             ", \"product\": \"%s\", \"rows\": %d, \"in\": %d, \"out\": %d, \"choice\": %d, "
             "\"TFLOP_per_s\": %.1f, \"algorithm\": \"%s\"",
             name, rows, in, out, skip, 2.0 * rows * weights / time / 1e6,
             linear->algorithm().c_str());
    Print(std::string("product ") + name + ", " + std::to_string(rows) + " rows", time,
          2.0 * (weights + int64_t{rows} * (in + out)), more);
  }
}

void MeasureAll(bool products) {
  MeasureBandwidth();
  MeasureAttention("attention, 256 sequences x 300", 256, 1, 300, 32);
  MeasureAttention("attention, 512 sequences x 300", 512, 1, 300, 32);
  MeasureAttention("attention, 256 sequences x 4096", 256, 1, 4096, 8);
  MeasureAttention("attention, 28/4 heads of 128, 256 x 300", 256, 1, 300, 28, {28, 4, 128});
  MeasureAttention("attention, 32/8 heads of 64, 256 x 300", 256, 1, 300, 16, {32, 8, 64});
  // In the middle of an answer; by how many heads a block takes.
  for (int sequences : {64, 128, 256, 512}) {
    for (int block_heads : {1, 2, 4, 8}) {
      MeasureAttention("attention, " + std::to_string(sequences) + " sequences x 197, " +
                           std::to_string(block_heads) + " heads a block",
                       sequences, 1, 197, 32, {}, block_heads);
    }
  }
  MeasureAttention("attention, 4 sequences x 300", 4, 1, 300, 32);
  MeasureAttention("attention, 4 prompts of 64", 4, 64, 64, 32);
  MeasureAttention("attention, 1 prompt of 1024", 1, 1024, 1024, 32);
  for (int rows : {256, 512}) MeasureRowOps(rows);
  for (int rows : {256, 512}) {
    for (double temperature : {0.0, 1.0}) MeasureSample(rows, temperature);
  }
  if (!products) return;
  cublasLtHandle_t handle;
  if (cublasLtCreate(&handle) != CUBLAS_STATUS_SUCCESS) exit(1);
  for (int rows : {256, 512}) {
    MeasureProduct(handle, "qkv", rows, kHidden, (kHeads + 2 * kKvHeads) * kHeadDim);
    MeasureProduct(handle, "o", rows, kHidden, kHidden);
    MeasureProduct(handle, "gate_up", rows, kHidden, 2 * kInner);
    MeasureProduct(handle, "down", rows, kInner, kHidden);
    MeasureProduct(handle, "head", rows, kHidden, kVocab);
  }
  cublasLtDestroy(handle);
}

}  // namespace
}  // namespace plumbline::cuda

// --no-products leaves the products out.
int main(int argc, char** argv) {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    fprintf(stderr, "SKIPPED: no GPU\n");
    return 77;
  }
  cudaDeviceProp properties;
  plumbline::cuda::Check(cudaGetDeviceProperties(&properties, 0), "device");
  printf("{\"device\": \"%s\", \"multiprocessors\": %d, \"rows\": [\n", properties.name,
         properties.multiProcessorCount);
  plumbline::cuda::MeasureAll(argc < 2 || std::string(argv[1]) != "--no-products");
  printf("\n]}\n");
  return 0;
}
