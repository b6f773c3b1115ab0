#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/channel_stats.h"

namespace plumbline::kernels {
namespace {

// One segment of all channels, and the segments before it.
template <typename T>
class Segments {
 public:
  Segments(int64_t channels, const ChannelStats& stats)
      : channels_(channels),
        stats_(stats),
        mean_(channels),
        squares_(channels),
        low_(channels),
        high_(channels) {}

  void Add(const T* rows, int64_t n, int64_t stride) {
    Sum(rows, n, stride);
    Deviate(rows, n, stride);
    for (int64_t c = 0; c < channels_; ++c) {
      const StatsMoments moments =
          MergeMoments({rows_, stats_.mean[c], stats_.squares[c]}, {n, mean_[c], squares_[c]});
      stats_.mean[c] = moments.mean;
      stats_.squares[c] = moments.squares;
      const bool first = rows_ == 0;
      stats_.min[c] = first || low_[c] < stats_.min[c] ? low_[c] : stats_.min[c];
      stats_.max[c] = first || high_[c] > stats_.max[c] ? high_[c] : stats_.max[c];
    }
    rows_ += n;
  }

 private:
  void Sum(const T* rows, int64_t n, int64_t stride) {
    double* const sum = mean_.data();
    float* const low = low_.data();
    float* const high = high_.data();
    for (int64_t c = 0; c < channels_; ++c) {
      low[c] = high[c] = ToFloat(rows[c]);
      sum[c] = 0;
    }
    for (int64_t i = 0; i < n; ++i) {
      const T* row = rows + i * stride;
      for (int64_t c = 0; c < channels_; ++c) {
        const float x = ToFloat(row[c]);
        low[c] = x < low[c] ? x : low[c];
        high[c] = x > high[c] ? x : high[c];
        sum[c] += static_cast<double>(x);
      }
    }
    for (int64_t c = 0; c < channels_; ++c) sum[c] /= static_cast<double>(n);
  }

  void Deviate(const T* rows, int64_t n, int64_t stride) {
    const double* const mean = mean_.data();
    double* const squares = squares_.data();
    std::fill_n(squares, channels_, 0.0);
    for (int64_t i = 0; i < n; ++i) {
      const T* row = rows + i * stride;
      for (int64_t c = 0; c < channels_; ++c) {
        const double deviation = static_cast<double>(ToFloat(row[c])) - mean[c];
        squares[c] += deviation * deviation;
      }
    }
  }

  const int64_t channels_;
  const ChannelStats& stats_;
  int64_t rows_ = 0;  // of the segments before
  std::vector<double> mean_, squares_;
  std::vector<float> low_, high_;
};

template <typename T>
void Count(const T* row, int heads, int head_dim, uint32_t* counts) {
  for (int head = 0; head < heads; ++head, counts += kStatsBins) {
    for (int i = 0; i < head_dim; ++i) {
      const float x = ToFloat(*row++);
      uint32_t bits;
      std::memcpy(&bits, &x, sizeof bits);
      ++counts[StatsBin(bits)];
    }
  }
}

template <typename T>
void MeasureRows(const T* rows, int64_t n, int64_t stride, int heads, int head_dim,
                 const ChannelStats& stats) {
  Segments<T> segments(int64_t{heads} * head_dim, stats);
  for (int64_t i = 0; i < n; i += kStatsSegmentRows) {
    segments.Add(rows + i * stride, std::min<int64_t>(kStatsSegmentRows, n - i), stride);
  }
  std::fill_n(stats.counts, int64_t{heads} * kStatsBins, 0);
  for (int64_t i = 0; i < n; ++i) Count(rows + i * stride, heads, head_dim, stats.counts);
}

}  // namespace

void MeasureRowsF32(const float* rows, int64_t n, int64_t stride, int heads, int head_dim,
                    const ChannelStats& stats) {
  MeasureRows(rows, n, stride, heads, head_dim, stats);
}
void MeasureRowsBf16(const Bf16* rows, int64_t n, int64_t stride, int heads, int head_dim,
                     const ChannelStats& stats) {
  MeasureRows(rows, n, stride, heads, head_dim, stats);
}

}  // namespace plumbline::kernels
