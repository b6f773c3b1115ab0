// Statistics of rows for an oracle: reads parts until the end of its input, each of three int32
// (heads, head_dim, rows) and rows * heads * head_dim float32, and writes of each the doubles mean
// and squares, the float32 min and max, the uint32 counts, as kernels/channel_stats.h lays them
// out; then of all parts together rows, mean and squares a channel, merged in their order (all of
// one shape).
#include <cstdint>
#include <cstdio>
#include <vector>

#include "kernels/channel_stats.h"

using plumbline::kernels::ChannelStats;
using plumbline::kernels::MergeMoments;
using plumbline::kernels::StatsMoments;

int main() {
  std::vector<StatsMoments> merged;
  int32_t sizes[3];
  while (std::fread(sizes, sizeof sizes, 1, stdin) == 1) {
    const int heads = sizes[0], head_dim = sizes[1];
    const int64_t channels = int64_t{heads} * head_dim, rows = sizes[2];
    std::vector<float> values(rows * channels);
    if (std::fread(values.data(), sizeof(float), values.size(), stdin) != values.size()) return 1;
    std::vector<double> memory(plumbline::kernels::ChannelStatsBytes(heads, head_dim) / 8);
    auto* bytes = reinterpret_cast<char*>(memory.data());
    const ChannelStats stats = plumbline::kernels::ChannelStatsAt(bytes, heads, head_dim);
    plumbline::kernels::MeasureRowsF32(values.data(), rows, channels, heads, head_dim, stats);
    std::fwrite(memory.data(), sizeof(double), memory.size(), stdout);
    merged.resize(channels);
    for (int64_t c = 0; c < channels; ++c) {
      merged[c] = MergeMoments(merged[c], {rows, stats.mean[c], stats.squares[c]});
    }
  }
  for (const StatsMoments& moments : merged) {
    const double numbers[] = {static_cast<double>(moments.rows), moments.mean, moments.squares};
    std::fwrite(numbers, sizeof numbers, 1, stdout);
  }
  return 0;
}
