// What the GPU benchmarks hold a step against: the products alone, and the bandwidth that keys and
// values could be read with; and the parts of a step, timed one by one. Weights are random.
//
// Any failure ends the program with its reason.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "kernels/bf16.h"
#include "services/common/status_macros.h"
#include "services/engine/cuda/cuda_parts.h"

namespace plumbline {

using Clock = std::chrono::steady_clock;

inline double Seconds(Clock::time_point since) {
  return std::chrono::duration<double>(Clock::now() - since).count();
}

inline void Check(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  std::exit(1);
}
inline void Check(cudaError_t error) { Check(CudaStatus(error, "bench")); }

// Normal values of deviation 0.02 (matrices) and ones (norms): a block of random values is laid
// over each matrix from another place every time.
inline absl::Status FillRandom(const CudaWeights& weights) {
  constexpr int64_t kBlock = int64_t{1} << 25;
  std::vector<Bf16> block(kBlock);
  std::mt19937 random(7);
  for (Bf16& value : block) {
    const uint32_t a = random(), b = random();
    const float sum = static_cast<float>(a & 0xffff) + static_cast<float>(a >> 16) +
                      static_cast<float>(b & 0xffff) + static_cast<float>(b >> 16);
    value = kernels::ToBf16((sum / 65536.0f - 2.0f) * 0.02f * 1.732f);
  }
  PLUMB_ASSIGN_OR_RETURN(const DeviceBuffer source, DeviceBuffer::Create(kBlock * 2, "values"));
  Check(cudaMemcpy(source.data(), block.data(), kBlock * 2, cudaMemcpyHostToDevice));
  const std::vector<Bf16> ones(16384, kernels::ToBf16(1.0f));
  for (const WeightLayout::Piece& piece : weights.layout.pieces) {
    char* to = weights.memory.at(piece.offset);
    if (piece.shape.size() == 1) {
      Check(cudaMemcpy(to, ones.data(), piece.count * 2, cudaMemcpyHostToDevice));
      continue;
    }
    for (int64_t done = 0; done < piece.count;) {
      const int64_t begin = (random() % (kBlock / 2)) & ~int64_t{7};
      const int64_t count = std::min(kBlock - begin, piece.count - done);
      Check(cudaMemcpyAsync(to + done * 2, source.at(begin * 2), count * 2,
                            cudaMemcpyDeviceToDevice));
      done += count;
    }
  }
  return CudaStatus(cudaDeviceSynchronize(), "random weights");
}

// Bytes read and written a second by a copy on the device.
inline double CopyBandwidth() {
  constexpr int64_t kBytes = int64_t{2} << 30;
  auto from = DeviceBuffer::Create(kBytes, "copy"), to = DeviceBuffer::Create(kBytes, "copy");
  Check(from.status());
  Check(to.status());
  double best = 0;
  for (int i = 0; i < 6; ++i) {
    Check(cudaDeviceSynchronize());
    const auto start = Clock::now();
    for (int j = 0; j < 4; ++j) {
      Check(cudaMemcpyAsync(to->data(), from->data(), kBytes, cudaMemcpyDeviceToDevice));
    }
    Check(cudaDeviceSynchronize());
    best = std::max(best, 4 * 2.0 * kBytes / Seconds(start));
  }
  return best;
}

// Milliseconds of each part of a step, of steps that are launched part by part.
class PartTimes {
 public:
  explicit PartTimes(cudaStream_t stream) : stream_(stream) { Begin(); }
  ~PartTimes() {
    for (cudaEvent_t event : events_) cudaEventDestroy(event);
  }
  void Begin() { Mark(StepPart::kParts); }
  void Mark(StepPart part) {
    cudaEvent_t event;
    Check(cudaEventCreate(&event));
    Check(cudaEventRecord(event, stream_));
    events_.push_back(event);
    parts_.push_back(part);
  }
  std::array<double, static_cast<int>(StepPart::kParts)> Sum() {
    Check(cudaDeviceSynchronize());
    std::array<double, static_cast<int>(StepPart::kParts)> sums{};
    for (size_t i = 1; i < events_.size(); ++i) {
      if (parts_[i] == StepPart::kParts) continue;
      float ms = 0;
      Check(cudaEventElapsedTime(&ms, events_[i - 1], events_[i]));
      sums[static_cast<int>(parts_[i])] += ms;
    }
    return sums;
  }

 private:
  cudaStream_t stream_;
  std::vector<cudaEvent_t> events_;
  std::vector<StepPart> parts_;
};

// One step's products over the weights that the engine holds, in milliseconds: the best of the
// first eight, while the clock is still high; what they take after a second of them; and, after a
// second of steps in which each layer's keys and values are moved too, what such a step takes. The
// last is the floor at the clock that the card's power allows: nothing but the work that no engine
// can leave out.
struct ProductTimes {
  double best = 1e9, sustained = 0, steady_step = 0;
};
// kv_bytes: of all layers; moved as half as many read and half written, as CopyBandwidth counts.
inline ProductTimes ProductsAlone(const CudaForward& forward, int rows, int chunks,
                                  int64_t kv_bytes) {
  const CudaWeights& weights = forward.weights();
  const cuda::ModelDims dims = forward.dims();
  constexpr int64_t kWorkspace = int64_t{32} << 20;
  auto x = DeviceBuffer::Create(int64_t{rows} * dims.inner * 2, "x");
  auto y = DeviceBuffer::Create(int64_t{rows} * dims.vocab * 2, "y");
  auto workspace = DeviceBuffer::Create(kWorkspace, "workspace");
  for (const auto* buffer : {&x, &y, &workspace}) Check(buffer->status());
  // Values of a usual size: power, and with it the clock, depend on them.
  Check(cudaMemcpy(x->data(), weights.memory.at(weights.layout.layers[0].gate_up), x->bytes(),
                   cudaMemcpyDeviceToDevice));
  cublasLtHandle_t handle;
  if (cublasLtCreate(&handle) != CUBLAS_STATUS_SUCCESS) std::exit(1);
  const auto make = [&](int in, int out) {
    cuda::LinearFailure failure;
    auto made =
        cuda::Linear::Create(handle, cuda::Dtype::kBf16, rows, in, out, kWorkspace, &failure);
    if (made == nullptr) Check(absl::InternalError(failure.text));
    return made;
  };
  const auto qkv = make(dims.hidden, dims.qkv_dim()), out = make(dims.q_dim(), dims.hidden),
             gate_up = make(dims.hidden, 2 * dims.inner), down = make(dims.inner, dims.hidden),
             head = make(dims.hidden, dims.vocab);
  const auto run = [&](const auto& product, int64_t weight) {
    Check(product->Run(x->data(), weights.memory.at(weight), y->data(), workspace->data(),
                       forward.stream()));
  };
  // Other keys and values every layer, so that none are found in the L2.
  constexpr int kTurns = 4;
  const int64_t layer_bytes = kv_bytes / dims.layers / 2;
  auto from = DeviceBuffer::Create(kTurns * layer_bytes, "keys and values");
  auto to = DeviceBuffer::Create(kTurns * layer_bytes, "keys and values");
  for (const auto* buffer : {&from, &to}) Check(buffer->status());
  for (int turn = 0; turn < kTurns; ++turn) {  // random values, as of the weights
    const int64_t bytes = std::min(layer_bytes, weights.memory.bytes());
    Check(cudaMemcpy(from->at(turn * layer_bytes), weights.memory.data(), bytes,
                     cudaMemcpyDeviceToDevice));
  }
  const auto step = [&](bool moves) {
    PartTimes times(forward.stream());
    int turn = 0;
    for (const WeightLayout::Layer& layer : weights.layout.layers) {
      for (int i = 0; i < chunks; ++i) run(qkv, layer.qkv);
      if (moves) {
        const int64_t at = turn++ % kTurns * layer_bytes;
        Check(cudaMemcpyAsync(to->at(at), from->at(at), layer_bytes, cudaMemcpyDeviceToDevice,
                              forward.stream()));
      }
      for (int i = 0; i < chunks; ++i) run(out, layer.attention_out);
      for (int i = 0; i < chunks; ++i) run(gate_up, layer.gate_up);
      for (int i = 0; i < chunks; ++i) run(down, layer.down);
    }
    for (int i = 0; i < chunks; ++i) run(head, weights.layout.head);
    times.Mark(StepPart::kProducts);
    return times.Sum()[static_cast<int>(StepPart::kProducts)];
  };
  const auto second = [&](bool moves) {
    std::vector<double> all;
    for (double total = 0; total < 1000 || all.size() < 15; total += all.back()) {
      all.push_back(step(moves));
    }
    return all;
  };
  const auto settled = [](std::vector<double> all) {
    std::nth_element(all.end() - 15, all.end() - 8, all.end());
    return all.end()[-8];
  };
  ProductTimes times;
  const std::vector<double> products = second(false);
  times.best = *std::min_element(products.begin(), products.begin() + 8);
  times.sustained = settled(products);
  times.steady_step = settled(second(true));
  cublasLtDestroy(handle);
  return times;
}

}  // namespace plumbline
