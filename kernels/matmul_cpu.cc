#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/matmul.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace plumbline::kernels {
namespace {

using Multiply = void (*)(const float* x, int64_t rows, int64_t in, const float* panel,
                          const float* bias, int columns, float* y, int64_t y_stride);

// Sums of one row as they leave the registers.
inline void Finish(const float* sums, const float* bias, int columns, float* y) {
  if (bias == nullptr) {
    std::memcpy(y, sums, sizeof(float) * columns);
  } else {
    for (int c = 0; c < columns; ++c) y[c] = sums[c] + bias[c];
  }
}

#if defined(__x86_64__)

// R rows by 48 columns in 3R vector registers.
template <int R>
__attribute__((target("avx512f"), always_inline)) inline void Block512(const float* x, int64_t in,
                                                                       const float* panel,
                                                                       const float* bias,
                                                                       int columns, float* y,
                                                                       int64_t y_stride) {
  float totals[R * kPanelColumns] = {};
  for (int64_t begin = 0; begin < in; begin += kChainLength) {
    const int64_t end = std::min(in, begin + kChainLength);
    __m512 sums[R][3];
    for (int r = 0; r < R; ++r) {
      for (int j = 0; j < 3; ++j) sums[r][j] = _mm512_setzero_ps();
    }
    for (int64_t k = begin; k < end; ++k) {
      const float* w = panel + k * kPanelColumns;
      const __m512 w0 = _mm512_loadu_ps(w);
      const __m512 w1 = _mm512_loadu_ps(w + 16);
      const __m512 w2 = _mm512_loadu_ps(w + 32);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const __m512 value = _mm512_set1_ps(x[r * in + k]);
        sums[r][0] = _mm512_fmadd_ps(value, w0, sums[r][0]);
        sums[r][1] = _mm512_fmadd_ps(value, w1, sums[r][1]);
        sums[r][2] = _mm512_fmadd_ps(value, w2, sums[r][2]);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 3
      for (int j = 0; j < 3; ++j) {
        float* total = totals + r * kPanelColumns + 16 * j;
        _mm512_storeu_ps(total, _mm512_add_ps(_mm512_loadu_ps(total), sums[r][j]));
      }
    }
  }
  for (int r = 0; r < R; ++r) {
    Finish(totals + r * kPanelColumns, bias, columns, y + r * y_stride);
  }
}

__attribute__((target("avx512f"))) void Multiply512(const float* x, int64_t rows, int64_t in,
                                                    const float* panel, const float* bias,
                                                    int columns, float* y, int64_t y_stride) {
  int64_t r = 0;
  for (; r + 8 <= rows; r += 8) {
    Block512<8>(x + r * in, in, panel, bias, columns, y + r * y_stride, y_stride);
  }
  if (rows - r >= 4) {
    Block512<4>(x + r * in, in, panel, bias, columns, y + r * y_stride, y_stride);
    r += 4;
  }
  for (; r < rows; ++r) {
    Block512<1>(x + r * in, in, panel, bias, columns, y + r * y_stride, y_stride);
  }
}

// R rows by 16 of the panel's columns.
template <int R>
__attribute__((target("avx2,fma"), always_inline)) inline void Block256(const float* x, int64_t in,
                                                                        const float* panel,
                                                                        float* sums_out) {
  for (int r = 0; r < R; ++r) std::fill_n(sums_out + r * kPanelColumns, 16, 0.0f);
  for (int64_t begin = 0; begin < in; begin += kChainLength) {
    const int64_t end = std::min(in, begin + kChainLength);
    __m256 sums[R][2];
    for (int r = 0; r < R; ++r) sums[r][0] = sums[r][1] = _mm256_setzero_ps();
    for (int64_t k = begin; k < end; ++k) {
      const __m256 w0 = _mm256_loadu_ps(panel + k * kPanelColumns);
      const __m256 w1 = _mm256_loadu_ps(panel + k * kPanelColumns + 8);
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r) {
        const __m256 value = _mm256_set1_ps(x[r * in + k]);
        sums[r][0] = _mm256_fmadd_ps(value, w0, sums[r][0]);
        sums[r][1] = _mm256_fmadd_ps(value, w1, sums[r][1]);
      }
    }
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
      for (int j = 0; j < 2; ++j) {
        float* total = sums_out + r * kPanelColumns + 8 * j;
        _mm256_storeu_ps(total, _mm256_add_ps(_mm256_loadu_ps(total), sums[r][j]));
      }
    }
  }
}

__attribute__((target("avx2,fma"))) void Multiply256(const float* x, int64_t rows, int64_t in,
                                                     const float* panel, const float* bias,
                                                     int columns, float* y, int64_t y_stride) {
  constexpr int kRows = 6;
  float sums[kRows * kPanelColumns];
  for (int64_t r = 0; r < rows;) {
    const int block = rows - r >= kRows ? kRows : 1;
    for (int c = 0; c < kPanelColumns; c += 16) {
      if (block == kRows) {
        Block256<kRows>(x + r * in, in, panel + c, sums + c);
      } else {
        Block256<1>(x + r * in, in, panel + c, sums + c);
      }
    }
    for (int i = 0; i < block; ++i) {
      Finish(sums + i * kPanelColumns, bias, columns, y + (r + i) * y_stride);
    }
    r += block;
  }
}

inline void FinishBf16(const float* sums, const Bf16* bias, int columns, Bf16* y) {
  for (int c = 0; c < columns; ++c) {
    y[c] = ToBf16(bias == nullptr ? sums[c] : sums[c] + ToFloat(bias[c]));
  }
}

template <int R>
__attribute__((target("avx512f,avx512bf16"), always_inline)) inline void BlockBf16(
    const Bf16* x, int64_t in, const Bf16* panel, const Bf16* bias, int columns, Bf16* y,
    int64_t y_stride) {
  __m512 sums[R][3];
  for (int r = 0; r < R; ++r) {
    for (int j = 0; j < 3; ++j) sums[r][j] = _mm512_setzero_ps();
  }
  for (int64_t k = 0; k < in; k += 2) {
    const Bf16* w = panel + k * kPanelColumns;
    const __m512i w0 = _mm512_loadu_si512(w);
    const __m512i w1 = _mm512_loadu_si512(w + 32);
    const __m512i w2 = _mm512_loadu_si512(w + 64);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      int32_t pair;
      std::memcpy(&pair, x + r * in + k, sizeof pair);
      const __m512bh value = (__m512bh)_mm512_set1_epi32(pair);
      sums[r][0] = _mm512_dpbf16_ps(sums[r][0], value, (__m512bh)w0);
      sums[r][1] = _mm512_dpbf16_ps(sums[r][1], value, (__m512bh)w1);
      sums[r][2] = _mm512_dpbf16_ps(sums[r][2], value, (__m512bh)w2);
    }
  }
  for (int r = 0; r < R; ++r) {
    float row[kPanelColumns];
    for (int j = 0; j < 3; ++j) _mm512_storeu_ps(row + 16 * j, sums[r][j]);
    FinishBf16(row, bias, columns, y + r * y_stride);
  }
}

__attribute__((target("avx512f,avx512bf16"))) void MultiplyBf16(const Bf16* x, int64_t rows,
                                                                int64_t in, const Bf16* panel,
                                                                const Bf16* bias, int columns,
                                                                Bf16* y, int64_t y_stride) {
  int64_t r = 0;
  for (; r + 8 <= rows; r += 8) {
    BlockBf16<8>(x + r * in, in, panel, bias, columns, y + r * y_stride, y_stride);
  }
  if (rows - r >= 4) {
    BlockBf16<4>(x + r * in, in, panel, bias, columns, y + r * y_stride, y_stride);
    r += 4;
  }
  for (; r < rows; ++r) {
    BlockBf16<1>(x + r * in, in, panel, bias, columns, y + r * y_stride, y_stride);
  }
}

Multiply ChooseMultiply() {
  if (__builtin_cpu_supports("avx512f")) return Multiply512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Multiply256;
  return MultiplyPanelPlain;
}
#else
Multiply ChooseMultiply() { return MultiplyPanelPlain; }
#endif

}  // namespace

void PackPanels(const float* weight, int64_t out, int64_t in, float* panels) {
  for (int64_t panel = 0; panel < PanelCount(out); ++panel) {
    for (int64_t k = 0; k < in; ++k) {
      for (int c = 0; c < kPanelColumns; ++c) {
        const int64_t row = panel * kPanelColumns + c;
        *panels++ = row < out ? weight[row * in + k] : 0.0f;
      }
    }
  }
}

void MultiplyPanelPlain(const float* x, int64_t rows, int64_t in, const float* panel,
                        const float* bias, int columns, float* y, int64_t y_stride) {
  for (int64_t r = 0; r < rows; ++r) {
    float totals[kPanelColumns] = {};
    for (int64_t begin = 0; begin < in; begin += kChainLength) {
      const int64_t end = std::min(in, begin + kChainLength);
      float sums[kPanelColumns] = {};
      for (int64_t k = begin; k < end; ++k) {
        for (int c = 0; c < columns; ++c) {
          sums[c] = std::fma(x[r * in + k], panel[k * kPanelColumns + c], sums[c]);
        }
      }
      for (int c = 0; c < columns; ++c) totals[c] += sums[c];
    }
    Finish(totals, bias, columns, y + r * y_stride);
  }
}

#if defined(__x86_64__)
bool HasBf16Products() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bf16");
}
void MultiplyPanelBf16(const Bf16* x, int64_t rows, int64_t in, const Bf16* panel, const Bf16* bias,
                       int columns, Bf16* y, int64_t y_stride) {
  MultiplyBf16(x, rows, in, panel, bias, columns, y, y_stride);
}
#else
bool HasBf16Products() { return false; }
void MultiplyPanelBf16(const Bf16*, int64_t, int64_t, const Bf16*, const Bf16*, int, Bf16*,
                       int64_t) {}
#endif

void PackPanelsBf16(const Bf16* weight, int64_t out, int64_t in, Bf16* panels) {
  for (int64_t panel = 0; panel < PanelCount(out); ++panel) {
    for (int64_t k = 0; k < in; k += 2) {
      for (int c = 0; c < kPanelColumns; ++c) {
        const int64_t row = panel * kPanelColumns + c;
        for (int i = 0; i < 2; ++i) {
          *panels++ = row < out ? weight[row * in + k + i] : Bf16{0};
        }
      }
    }
  }
}

void MultiplyPanel(const float* x, int64_t rows, int64_t in, const float* panel, const float* bias,
                   int columns, float* y, int64_t y_stride) {
  static const Multiply multiply = ChooseMultiply();
  multiply(x, rows, in, panel, bias, columns, y, y_stride);
}

}  // namespace plumbline::kernels
