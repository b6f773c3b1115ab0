// A linear map y = x W^T + b. A row of y depends on the same row of x and on the weights alone: not
// on the number of rows, their order, the others or the threads (kernels/matmul.h says in which
// order it sums).
#pragma once

#include <cstdint>

#include "kernels/bf16.h"
#include "services/engine/cpu/aligned_buffer.h"

namespace plumbline {

// Rows that pass through a block's maps together, so that its weights and their activations stay in
// cache. Any number gives the same bits.
constexpr int kTileRows = 128;

// fp32 sums with fused multiply-add in fp32. bf16 sums in fp32 and rounds once: by AVX512-BF16
// where the processor has it, else as fp32.
template <typename T>
class Linear {
 public:
  Linear() = default;
  // weight: [out, in]; bias: [out] or empty.
  Linear(const AlignedBuffer<T>& weight, int64_t out, int64_t in, AlignedBuffer<T> bias);

  // x: [rows, in], y: [rows, out], dense. Uses the engine's threads; not inside a ParallelFor.
  void Apply(const T* x, int64_t rows, T* y) const;

  int64_t in() const { return in_; }
  int64_t out() const { return out_; }

 private:
  AlignedBuffer<T> panels_;            // of kernels/matmul.h, or
  AlignedBuffer<float> float_panels_;  // the same in fp32, where bf16 has no instruction
  AlignedBuffer<T> bias_;
  int64_t out_ = 0;
  int64_t in_ = 0;
};

// How products of this dtype are summed on this processor, for the numerics class.
template <typename T>
const char* ProductName();

}  // namespace plumbline
