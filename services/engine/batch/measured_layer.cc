#include "services/engine/batch/measured_layer.h"

#include <algorithm>
#include <cmath>

namespace plumbline {
namespace {

void AddTensor(const MeasuredTensor& more, int64_t more_rows, int64_t sum_rows,
               MeasuredTensor* sum) {
  for (size_t c = 0; c < sum->mean.size(); ++c) {
    const kernels::StatsMoments moments = kernels::MergeMoments(
        {sum_rows, sum->mean[c], sum->squares[c]}, {more_rows, more.mean[c], more.squares[c]});
    sum->mean[c] = moments.mean;
    sum->squares[c] = moments.squares;
    sum->min[c] = std::min(sum->min[c], more.min[c]);
    sum->max[c] = std::max(sum->max[c], more.max[c]);
  }
  for (size_t i = 0; i < sum->counts.size(); ++i) sum->counts[i] += more.counts[i];
}

void MeasureRows(const float* rows, int64_t n, int64_t stride, const ModelShape& shape,
                 const kernels::ChannelStats& stats) {
  kernels::MeasureRowsF32(rows, n, stride, shape.num_kv_heads, shape.head_dim, stats);
}
void MeasureRows(const Bf16* rows, int64_t n, int64_t stride, const ModelShape& shape,
                 const kernels::ChannelStats& stats) {
  kernels::MeasureRowsBf16(rows, n, stride, shape.num_kv_heads, shape.head_dim, stats);
}

}  // namespace

template <typename T>
MeasuredTensor MeasureTensor(const T* rows, int64_t n, int64_t stride, const ModelShape& shape) {
  const int64_t bytes = kernels::ChannelStatsBytes(shape.num_kv_heads, shape.head_dim);
  std::vector<double> memory(bytes / static_cast<int64_t>(sizeof(double)));
  const kernels::ChannelStats stats = kernels::ChannelStatsAt(
      reinterpret_cast<char*>(memory.data()), shape.num_kv_heads, shape.head_dim);
  MeasureRows(rows, n, stride, shape, stats);
  return TensorOf(stats, shape);
}
template MeasuredTensor MeasureTensor(const float*, int64_t, int64_t, const ModelShape&);
template MeasuredTensor MeasureTensor(const Bf16*, int64_t, int64_t, const ModelShape&);

MeasuredTensor TensorOf(const kernels::ChannelStats& stats, const ModelShape& shape) {
  const int64_t channels = int64_t{shape.num_kv_heads} * shape.head_dim;
  MeasuredTensor tensor;
  tensor.mean.assign(stats.mean, stats.mean + channels);
  tensor.squares.assign(stats.squares, stats.squares + channels);
  tensor.min.assign(stats.min, stats.min + channels);
  tensor.max.assign(stats.max, stats.max + channels);
  tensor.counts.assign(stats.counts,
                       stats.counts + int64_t{shape.num_kv_heads} * kernels::kStatsBins);
  return tensor;
}

void AddMeasured(const MeasuredLayer& more, MeasuredLayer* sum) {
  if (sum->tokens == 0) {
    *sum = more;
    return;
  }
  AddTensor(more.keys, more.tokens, sum->tokens, &sum->keys);
  AddTensor(more.values, more.tokens, sum->tokens, &sum->values);
  sum->tokens += more.tokens;
}

std::vector<float> Absmax(const MeasuredTensor& tensor) {
  std::vector<float> absmax(tensor.min.size());
  for (size_t c = 0; c < absmax.size(); ++c) {
    absmax[c] = std::max(std::fabs(tensor.min[c]), std::fabs(tensor.max[c]));
  }
  return absmax;
}

}  // namespace plumbline
