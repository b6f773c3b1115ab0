// Statistics of the rows of one tensor (a layer's keys or values) in one pass over them: of each
// flat channel the minimum, maximum (and with them the largest magnitude), mean and sum of squared
// deviations, of each head a histogram of magnitudes. CPU and GPU (cuda/channel_stats.h) give equal
// bits: rows are taken in segments of kStatsSegmentRows from the first row on, each by two passes
// in row order in double, and segments are merged in ascending order. So a sequence's statistics
// depend on its rows alone.
//
// Merge of two parts (T. F. Chan, G. H. Golub, R. J. LeVeque, "Updating formulae and a pairwise
// algorithm for computing sample variances", Stanford STAN-CS-79-773, 1979): with d = mean_b -
// mean_a and s = n_b / (n_a + n_b)
//   mean = mean_a + d s,   squares = (squares_a + squares_b) + d^2 (n_a s).
//
// Values are expected finite: an infinity or NaN ends in a mean that is not finite.
#pragma once

#include <cstdint>

#include "kernels/bf16.h"

#ifdef __CUDACC__
#define PLUMB_HOST_DEVICE __host__ __device__
#else
#define PLUMB_HOST_DEVICE
#endif

namespace plumbline::kernels {

inline constexpr int kStatsSegmentRows = 32;

// Bins of |x| are fixed, since no one knows the largest value before the last row: 0 alone; below
// 2^-16; kStatsSubBins equal parts of each [2^e, 2^(e+1)), e = -16 .. 15; 2^16 and above.
inline constexpr int kStatsLowestExponent = -16, kStatsExponents = 32, kStatsSubBins = 4;
inline constexpr int kStatsBins = kStatsExponents * kStatsSubBins + 3;

// The bin of a float by its bits.
PLUMB_HOST_DEVICE inline int StatsBin(uint32_t bits) {
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude == 0) return 0;
  // The exponent and the two highest digits of the fraction number the sub-bins of all powers.
  const int sub_bin =
      static_cast<int>(magnitude >> 21) - (kStatsLowestExponent + 127) * kStatsSubBins;
  if (sub_bin < 0) return 1;
  return sub_bin < kStatsExponents * kStatsSubBins ? sub_bin + 2 : kStatsBins - 1;
}

// Mean and squared deviations of some rows of one channel.
struct StatsMoments {
  int64_t rows = 0;
  double mean = 0;
  double squares = 0;  // sum of squared deviations from the mean; over rows: population variance
};
// `rows` of a and b together are at least 1.
PLUMB_HOST_DEVICE inline StatsMoments MergeMoments(const StatsMoments& a, const StatsMoments& b) {
  if (a.rows == 0) return b;
  if (b.rows == 0) return a;
  const double share = static_cast<double>(b.rows) / static_cast<double>(a.rows + b.rows);
  const double delta = b.mean - a.mean;
  return {a.rows + b.rows, a.mean + delta * share,
          (a.squares + b.squares) + (delta * delta) * (static_cast<double>(a.rows) * share)};
}

// Where the statistics of one tensor lie; heads * head_dim channels, flat.
struct ChannelStats {
  double* mean = nullptr;      // [channels]
  double* squares = nullptr;   // [channels]
  float* min = nullptr;        // [channels]
  float* max = nullptr;        // [channels]
  uint32_t* counts = nullptr;  // [heads, kStatsBins]
};

// One block of memory with all of them, a multiple of 8 bytes; `memory` is aligned to 8.
PLUMB_HOST_DEVICE inline int64_t ChannelStatsBytes(int heads, int head_dim) {
  const int64_t channels = int64_t{heads} * head_dim;
  const int64_t bytes = channels * (2 * 8 + 2 * 4) + int64_t{heads} * kStatsBins * 4;
  return (bytes + 7) / 8 * 8;
}
PLUMB_HOST_DEVICE inline ChannelStats ChannelStatsAt(char* memory, int heads, int head_dim) {
  const int64_t channels = int64_t{heads} * head_dim;
  ChannelStats at;
  at.mean = reinterpret_cast<double*>(memory);
  at.squares = at.mean + channels;
  at.min = reinterpret_cast<float*>(at.squares + channels);
  at.max = at.min + channels;
  at.counts = reinterpret_cast<uint32_t*>(at.max + channels);
  return at;
}

// rows: n >= 1 rows of heads * head_dim values, one every `stride` elements. Everything that
// `stats` points to is overwritten.
void MeasureRowsF32(const float* rows, int64_t n, int64_t stride, int heads, int head_dim,
                    const ChannelStats& stats);
void MeasureRowsBf16(const Bf16* rows, int64_t n, int64_t stride, int heads, int head_dim,
                     const ChannelStats& stats);

}  // namespace plumbline::kernels
