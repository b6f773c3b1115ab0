#include <algorithm>
#include <cstring>

#include "kernels/matmul_double.h"
#include "kernels/vec.h"

namespace plumbline::kernels {
namespace {

constexpr int64_t kTileRows = 4;     // share a column's widening to double
constexpr int64_t kTileColumns = 8;  // one register of AVX-512, two of AVX2
constexpr int64_t kTileDepth = 32;   // rows of b that stay in the first cache for all columns
typedef double DoubleVec __attribute__((vector_size(64)));
typedef float HalfWidth __attribute__((vector_size(32)));

template <int kRows>
PLUMB_INLINE void Tile(const double* a, int64_t a_stride, const float* b, int64_t b_stride,
                       int64_t depth, double* sums, int64_t sums_stride) {
  DoubleVec totals[kRows];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    std::memcpy(&totals[r], sums + r * sums_stride, sizeof(DoubleVec));
  }
  for (int64_t k = 0; k < depth; ++k) {
    HalfWidth narrow;
    std::memcpy(&narrow, b + k * b_stride, sizeof narrow);
    const DoubleVec wide = __builtin_convertvector(narrow, DoubleVec);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) totals[r] += wide * a[r * a_stride + k];
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    std::memcpy(sums + r * sums_stride, &totals[r], sizeof(DoubleVec));
  }
}

template <int kRows>
PLUMB_INLINE void Rows(const double* a, int64_t a_stride, const float* b, int64_t b_stride,
                       int64_t depth, int64_t columns, double* sums, int64_t sums_stride) {
  int64_t c = 0;
  for (; c + kTileColumns <= columns; c += kTileColumns) {
    Tile<kRows>(a, a_stride, b + c, b_stride, depth, sums + c, sums_stride);
  }
  for (; c < columns; ++c) {
    for (int r = 0; r < kRows; ++r) {
      double total = sums[r * sums_stride + c];
      for (int64_t k = 0; k < depth; ++k) {
        total += static_cast<double>(b[k * b_stride + c]) * a[r * a_stride + k];
      }
      sums[r * sums_stride + c] = total;
    }
  }
}

}  // namespace

PLUMB_KERNEL_CLONES
void AccumulateDouble(const double* a, int64_t a_stride, int64_t rows, const float* b,
                      int64_t b_stride, int64_t depth, int64_t columns, double* sums,
                      int64_t sums_stride) {
  for (int64_t k = 0; k < depth; k += kTileDepth) {
    const int64_t here = std::min(kTileDepth, depth - k);
    const float* part = b + k * b_stride;
    int64_t r = 0;
    for (; r + kTileRows <= rows; r += kTileRows) {
      Rows<kTileRows>(a + r * a_stride + k, a_stride, part, b_stride, here, columns,
                      sums + r * sums_stride, sums_stride);
    }
    for (; r < rows; ++r) {
      Rows<1>(a + r * a_stride + k, a_stride, part, b_stride, here, columns, sums + r * sums_stride,
              sums_stride);
    }
  }
}

}  // namespace plumbline::kernels
