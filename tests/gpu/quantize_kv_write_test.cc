// LaunchKvWrite against a replay on the CPU: prompts and generated tokens of many sequences in
// shared steps, each with its own plan. Compared bit for bit: the whole cache, the noise in the
// step's rows, what prompts read under `exact`. (A NaN's sign and payload after the rotation are
// the machine's.)
#include "tests/gpu/quantize_kv_world.h"

namespace plumbline {
namespace {

using gpu_test::DeviceArray;
using gpu_test::Differences;
using gpu_test::kLayers;
using gpu_test::World;

constexpr int kMaxRows = 320;
constexpr int kMaxRuns = 32;

template <typename T>
class Runner {
 public:
  Runner(const TensorShape& shape, int sequences, uint64_t seed) : w_(shape, sequences, seed) {
    width_ = shape.flat_channels();
    q_dim_ = 2 * width_;
    qkv_dim_ = q_dim_ + 2 * width_;
  }

  // Runs every sequence to its end; returns what differed.
  void Run() {
    while (Step()) {
    }
  }
  Differences cache, rows, exact;
  std::string first;
  int64_t steps = 0;

 private:
  bool Step() {
    Arrange();
    if (runs_.empty()) return false;
    ++steps;
    runs_.resize(kMaxRuns);
    DeviceArray<cuda::Run> runs(runs_);
    DeviceArray<int32_t> row_run(row_run_), row_position(row_position_);
    for (int layer = 0; layer < kLayers; ++layer) Layer(layer, runs, row_run, row_position);
    for (const cuda::Run& run : runs_) {
      if (run.rows > 0) w_.sequences[run.sequence].held = run.first_position + run.rows;
    }
    return true;
  }

  // Sequences in a random order with gaps between them; each either its prompt or one token.
  void Arrange() {
    runs_.clear();
    row_run_.assign(kMaxRows, -1);
    row_position_.assign(kMaxRows, 0);
    std::vector<int> order(w_.sequences.size());
    std::iota(order.begin(), order.end(), 0);
    for (size_t i = order.size(); i > 1; --i) {
      std::swap(order[i - 1], order[w_.rng.Below(static_cast<int>(i))]);
    }
    int row = w_.rng.Below(3);
    for (int index : order) {
      auto& s = w_.sequences[index];
      const bool prompt = s.held == 0;
      const int rows = prompt ? s.prompt_tokens - s.stem : 1;
      if (s.held >= s.last || row + rows > kMaxRows || w_.rng.OneIn(4)) continue;
      cuda::Run run;
      run.first_row = row;
      run.rows = rows;
      run.first_position = prompt ? s.stem : s.held;
      run.prompt = prompt;
      run.sequence = index;
      run.plan = index;
      run.jitter_seed = s.jitter_seed;
      run.start_layer = prompt ? s.start_layer : 0;
      for (int r = 0; r < rows; ++r) {
        row_run_[row + r] = static_cast<int32_t>(runs_.size());
        row_position_[row + r] = run.first_position + r;
      }
      runs_.push_back(run);
      row += rows + w_.rng.Below(3);
    }
    if (runs_.empty() && std::any_of(w_.sequences.begin(), w_.sequences.end(),
                                     [](const auto& s) { return s.held < s.last; })) {
      Arrange();
    }
  }

  void Layer(int layer, const DeviceArray<cuda::Run>& runs, const DeviceArray<int32_t>& row_run,
             const DeviceArray<int32_t>& row_position) {
    std::vector<T> qkv(kMaxRows * qkv_dim_);
    for (int r = 0; r < kMaxRows; ++r) {
      const int run = row_run_[r];
      if (run < 0) continue;
      const int kind = w_.sequences[runs_[run].sequence].input_kind;
      const auto bytes = gpu_test::DrawRows(kind, 1, qkv_dim_, w_.shape.dtype, w_.rng);
      std::memcpy(static_cast<void*>(qkv.data() + r * qkv_dim_), bytes.data(), bytes.size());
    }
    DeviceArray<T> device_qkv(qkv);
    std::vector<T> exact[2] = {std::vector<T>(kMaxRows * width_),
                               std::vector<T>(kMaxRows * width_)};
    DeviceArray<T> device_exact[2] = {DeviceArray<T>(exact[0]), DeviceArray<T>(exact[1])};
    gpu_test::Check(cuda::LaunchKvWrite(Args(layer, runs, row_run, row_position, device_qkv.data(),
                                             device_exact[0].data(), device_exact[1].data()),
                                        nullptr),
                    "LaunchKvWrite");
    Replay(layer, qkv.data(), exact);
    gpu_test::Check(cudaDeviceSynchronize(), "KvWrite");
    const Differences in_cache = w_.ComparePool();
    cache.Add(in_cache);
    rows.Add(
        gpu_test::CompareValues(device_qkv.Get().data(), qkv.data(), qkv.size(), w_.shape.dtype));
    for (int t = 0; t < 2; ++t) {
      this->exact.Add(gpu_test::CompareValues(device_exact[t].Get().data(), exact[t].data(),
                                              exact[t].size(), w_.shape.dtype));
    }
    if (first.empty() && in_cache.different > 0) {
      first = "step " + std::to_string(steps) + " layer " + std::to_string(layer) + ": " +
              std::to_string(in_cache.different) + " values; plans:";
      for (const std::string& text : w_.plan_texts) first += "\n  " + text;
    }
  }

  cuda::KvWrite Args(int layer, const DeviceArray<cuda::Run>& runs,
                     const DeviceArray<int32_t>& row_run, const DeviceArray<int32_t>& row_position,
                     void* qkv, void* exact_keys, void* exact_values) {
    cuda::KvWrite args;
    args.dtype = w_.shape.dtype == KvDtype::kF32 ? cuda::Dtype::kF32 : cuda::Dtype::kBf16;
    args.dims.layers = kLayers;
    args.dims.heads = 2 * w_.shape.kv_heads;
    args.dims.kv_heads = w_.shape.kv_heads;
    args.dims.head_dim = w_.shape.head_dim;
    args.layer = layer;
    args.step.max_rows = kMaxRows;
    args.step.max_runs = kMaxRuns;
    args.step.max_pages = gpu_test::kPagesEach;
    args.step.row_run = row_run.data();
    args.step.row_position = row_position.data();
    args.step.runs = runs.data();
    args.step.pages = w_.device.pages.data();
    args.step.raw_pages = w_.device.raw_pages.data();
    args.step.plan_rules = w_.device.plan_rules.data();
    args.step.rules = w_.device.rules.data();
    args.step.frozen = w_.device.frozen.data();
    args.step.max_groups = w_.max_groups;
    args.pool = {w_.device.pool.data(), w_.page_elements};
    args.rope = {w_.device.cos.data(), w_.device.sin.data()};
    args.qkv = qkv;
    args.exact_keys = exact_keys;
    args.exact_values = exact_values;
    return args;
  }

  void Replay(int layer, T* qkv, std::vector<T>* exact) {
    for (const cuda::Run& run : runs_) {
      if (run.rows == 0 || layer < run.start_layer) continue;
      for (int value = 0; value < 2; ++value) {
        std::vector<T> own;
        for (int r = 0; r < run.rows; ++r) {
          T* row = qkv + (run.first_row + r) * qkv_dim_ + q_dim_ + value * width_;
          if (run.jitter_seed != 0) {
            gpu_test::JitterRow(
                gpu_test::JitterKey(run.jitter_seed, layer, run.first_position + r, value), width_,
                row);
          }
          own.insert(own.end(), row, row + width_);
        }
        auto& tensor = w_.sequences[run.sequence].tensors[layer * 2 + value];
        const RowRange changed =
            tensor.Write(own.data(), run.first_position, run.rows, run.prompt != 0, w_.rope,
                         exact[value].data() + run.first_row * width_);
        w_.Expect(run.sequence, layer, value, changed);
        w_.Expect(run.sequence, layer, value, {run.first_position, run.first_position + run.rows});
      }
    }
  }

  World<T> w_;
  int64_t width_ = 0, q_dim_ = 0;
  int qkv_dim_ = 0;
  std::vector<cuda::Run> runs_;
  std::vector<int32_t> row_run_, row_position_;
};

struct Total {
  Differences cache, rows, exact;
  int64_t steps = 0;
  std::string first;
};

template <typename T>
void RunShape(const TensorShape& shape, int rounds, Total* total) {
  for (int round = 0; round < rounds; ++round) {
    Runner<T> runner(shape, 10, shape.head_dim * 1000 + shape.kv_heads * 10 + round);
    runner.Run();
    total->cache.Add(runner.cache);
    total->rows.Add(runner.rows);
    total->exact.Add(runner.exact);
    total->steps += runner.steps;
    if (total->first.empty() && !runner.first.empty()) {
      total->first = std::to_string(shape.kv_heads) + " heads of " +
                     std::to_string(shape.head_dim) + ", " + runner.first;
    }
  }
}

template <typename T>
void RunShapes(KvDtype dtype, const char* name) {
  Total total;
  const bool small = SmallRun();
  for (int head_dim : {64, 80, 96, 128, 256}) {
    for (int kv_heads : {1, 2, 3, 8}) {
      if (small && (head_dim + kv_heads) % 4 != 1) continue;
      const int rounds = small ? 1 : std::max(1, 1024 / (head_dim * kv_heads));
      RunShape<T>({kv_heads, head_dim, dtype}, rounds, &total);
    }
  }
  std::printf(
      "KvWrite %s: %ld steps; cache %ld values compared, %ld different; rows %ld, %ld; "
      "exact %ld, %ld\n",
      name, total.steps, total.cache.compared, total.cache.different, total.rows.compared,
      total.rows.different, total.exact.compared, total.exact.different);
  EXPECT_GT(total.steps, small ? 50 : 1000);
  EXPECT_EQ(total.cache.different, 0) << total.first;
  EXPECT_EQ(total.rows.different + total.rows.other_nan, 0);
  EXPECT_EQ(total.exact.different, 0);
}

TEST(KvWrite, EveryBitOfF32EqualsTheCpusReplay) {
  SKIP_WITHOUT_GPU();
  RunShapes<float>(KvDtype::kF32, "f32");
}

TEST(KvWrite, EveryBitOfBf16EqualsTheCpusReplay) {
  SKIP_WITHOUT_GPU();
  RunShapes<Bf16>(KvDtype::kBf16, "bf16");
}

}  // namespace
}  // namespace plumbline
