// LaunchQuantizeRows against services/quant on the CPU: codes, scales, zeros and values of one
// prompt's rows, every bit, over the whole format grammar.
#include <algorithm>
#include <functional>

#include "kernels/cuda/kv_write.h"
#include "tests/gpu/quantize_formats.h"

namespace plumbline {
namespace {

using gpu_test::Bytes;
using gpu_test::Differences;
using gpu_test::Rng;

constexpr uint8_t kNoCode = 0xee;

struct Stored {
  Bytes values;
  std::vector<uint8_t> codes;  // [tokens, lanes], kNoCode where a row stays fp
  std::vector<float> scale, zero;
};

class Recorder final : public QuantObserver {
 public:
  explicit Recorder(Stored* stored) : stored_(stored) {}
  void OnBlock(const QuantizedBlock& block) override {
    std::copy_n(block.codes, block.tokens * block.lanes,
                stored_->codes.begin() + block.first_token * block.lanes);
    if (!block.new_parameters) return;
    stored_->scale.insert(stored_->scale.end(), block.scale, block.scale + block.parameters);
    if (block.zero == nullptr) return;
    stored_->zero.insert(stored_->zero.end(), block.zero, block.zero + block.parameters);
  }

 private:
  Stored* stored_;
};

struct Case {
  TensorFormat format;
  TensorShape shape;
  Calibration calibration;
  int tokens;
  Bytes rows;
};

Stored OnCpu(const Case& c, int lanes) {
  Stored stored;
  stored.values = c.rows;
  stored.codes.assign(static_cast<size_t>(c.tokens) * lanes, kNoCode);
  Recorder recorder(&stored);
  auto quantizer = *TensorQuantizer::Create(c.format, c.shape, &c.calibration);
  quantizer->SetObserver(&recorder);
  quantizer->Append(stored.values.data(), 0, c.tokens, Phase::kPromptLast);
  return stored;
}

// `want` tells how many parameters there are.
Stored OnGpu(const Case& c, const cuda::TensorRule& rule, const Stored& want) {
  gpu_test::DeviceArray<char> rows(c.rows);
  gpu_test::DeviceArray<uint8_t> codes(std::vector<uint8_t>(want.codes.size(), kNoCode));
  const std::vector<float> none(static_cast<size_t>(c.tokens) * rule.groups, -1.0f);
  gpu_test::DeviceArray<float> scale(none), zero(none);
  const auto dtype = c.shape.dtype == KvDtype::kF32 ? cuda::Dtype::kF32 : cuda::Dtype::kBf16;
  gpu_test::Check(cuda::LaunchQuantizeRows(dtype, static_cast<int>(c.shape.flat_channels()),
                                           c.shape.head_dim, rule, c.tokens, rows.data(),
                                           codes.data(), scale.data(), zero.data(), nullptr),
                  "LaunchQuantizeRows");
  gpu_test::Check(cudaDeviceSynchronize(), "QuantizeRows");
  return {rows.Get(), codes.Get(), scale.Get(want.scale.size()), zero.Get(want.zero.size())};
}

// A rotation of non-finite lanes gives NaNs whose sign is the operands' order's; the codes of fp8
// carry it.
int64_t DifferentCodes(const Stored& got, const Stored& want, const TensorFormat& format) {
  int64_t different = 0;
  for (size_t i = 0; i < want.codes.size(); ++i) {
    const uint8_t a = got.codes[i];
    const uint8_t b = want.codes[i];
    const bool sign_of_nan = format.is_fp8() && format.hadamard && (a & 0x7f) == 0x7f;
    different += sign_of_nan ? (a & 0x7f) != (b & 0x7f) : a != b;
  }
  return different;
}

struct Total {
  int64_t cases = 0, elements = 0, different = 0, other_nan = 0;
  std::string first;

  void Add(const Case& c, int kind, const Stored& got, const Stored& want) {
    const int64_t count = c.tokens * c.shape.flat_channels();
    Differences d =
        gpu_test::CompareValues(got.values.data(), want.values.data(), count, c.shape.dtype);
    const Differences s = gpu_test::CompareValues(got.scale.data(), want.scale.data(),
                                                  want.scale.size(), KvDtype::kF32);
    const Differences z =
        gpu_test::CompareValues(got.zero.data(), want.zero.data(), want.zero.size(), KvDtype::kF32);
    d.Add(s);
    d.Add(z);
    const int64_t codes = DifferentCodes(got, want, c.format);
    if (c.format.hadamard) d.other_nan = 0;
    if (first.empty() && d.different + codes + d.other_nan > 0) {
      first = FormatText(c.format) + " heads " + std::to_string(c.shape.kv_heads) + " of " +
              std::to_string(c.shape.head_dim) +
              (c.shape.dtype == KvDtype::kF32 ? " f32" : " bf16") + " tokens " +
              std::to_string(c.tokens) + " input " + std::to_string(kind) +
              ": values and parameters " + std::to_string(d.different) + " (scales " +
              std::to_string(s.different) + ", zeros " + std::to_string(z.different) + "), codes " +
              std::to_string(codes) + ", NaNs " + std::to_string(d.other_nan);
    }
    ++cases;
    elements += count;
    different += d.different + codes;
    other_nan += d.other_nan;
  }
};

// Every core format once, with the other options and the input drawn anew.
void RunFormats(const TensorShape& shape, uint64_t seed, int every,
                const std::function<void(DeviceRule*)>& change, Total* total) {
  Rng rng(seed);
  int index = 0;
  for (const TensorFormat& core : gpu_test::CoreFormats()) {
    if (++index % every != 0) continue;
    const auto format = gpu_test::Decorated(core, shape, rng);
    if (!format) continue;
    Case c{*format, shape, gpu_test::DrawCalibration(shape, rng), 1 + rng.Below(20), {}};
    const int kind = rng.Below(gpu_test::kInputKinds);
    c.rows = gpu_test::DrawRows(kind, c.tokens, static_cast<int>(shape.flat_channels()),
                                shape.dtype, rng);
    auto bound = BindDeviceRule(c.format, TensorRole::kKey, shape, &c.calibration);
    ASSERT_TRUE(bound.ok()) << bound.status().ToString();
    const Stored want = OnCpu(c, bound->rule.lanes);
    change(&*bound);
    const gpu_test::UploadedRule rule(*bound);
    total->Add(c, kind, OnGpu(c, rule.rule, want), want);
  }
}

TEST(QuantizeRows, EveryBitEqualsTheCpus) {
  SKIP_WITHOUT_GPU();
  Total total;
  const int every = SmallRun() ? 41 : 1;
  for (KvDtype dtype : {KvDtype::kF32, KvDtype::kBf16}) {
    for (int head_dim : {64, 80, 96, 128, 256}) {
      for (int kv_heads : {1, 2, 3, 8}) {
        const TensorShape shape{kv_heads, head_dim, dtype};
        RunFormats(
            shape, head_dim * 100 + kv_heads, every, [](DeviceRule*) {}, &total);
      }
    }
  }
  std::printf(
      "QuantizeRows: %ld formats and shapes, %ld elements, %ld differences, %ld other NaNs\n",
      total.cases, total.elements, total.different, total.other_nan);
  EXPECT_GT(total.cases, SmallRun() ? 500 : 20000);
  EXPECT_EQ(total.different, 0) << total.first;
  EXPECT_EQ(total.other_nan, 0) << total.first;
}

TEST(QuantizeRows, LongPromptsOverManyTilesEqualTheCpus) {
  SKIP_WITHOUT_GPU();
  Total total;
  Rng rng(77);
  for (const char* text : {"tensor", "channel"}) {
    for (Symmetry symmetry : {Symmetry::kSym, Symmetry::kAsym, Symmetry::kAffine}) {
      TensorFormat f;
      f.type = KvType::kInt4;
      f.symmetry = symmetry;
      f.granularity = text[0] == 't' ? Granularity::kTensor : Granularity::kChannel;
      const TensorShape shape{8, 128, KvDtype::kBf16};
      Case c{f, shape, {}, SmallRun() ? 70 : 1500, {}};
      c.rows = gpu_test::DrawRows(1, c.tokens, 1024, shape.dtype, rng);
      const auto bound = BindDeviceRule(f, TensorRole::kKey, shape, nullptr);
      ASSERT_TRUE(bound.ok());
      const Stored want = OnCpu(c, bound->rule.lanes);
      const gpu_test::UploadedRule rule(*bound);
      total.Add(c, 1, OnGpu(c, rule.rule, want), want);
    }
  }
  EXPECT_EQ(total.different + total.other_nan, 0) << total.first;
}

// The comparison sees a rule that is a little wrong.
TEST(QuantizeRows, AWrongRuleIsSeen) {
  SKIP_WITHOUT_GPU();
  const TensorShape shape{3, 64, KvDtype::kBf16};
  const std::pair<const char*, std::function<void(DeviceRule*)>> mistakes[] = {
      {"one bit more", [](DeviceRule* r) { ++r->rule.spec.bits; }},
      {"arithmetic", [](DeviceRule* r) { r->rule.spec.native = !r->rule.spec.native; }},
      {"tensor rule", [](DeviceRule* r) { r->rule.spec.tensor_rule = !r->rule.spec.tensor_rule; }},
      {"padding",
       [](DeviceRule* r) { r->rule.padded_group = r->rule.padded_group > 0 ? 0 : 1 << 20; }},
      {"sink", [](DeviceRule* r) { r->rule.sink += 1; }},
      {"overflow",
       [](DeviceRule* r) { r->rule.spec.fp8_torch_cast = !r->rule.spec.fp8_torch_cast; }},
      {"hadamard", [](DeviceRule* r) { r->rule.hadamard = 0; }},
      {"scale storage", [](DeviceRule* r) { r->rule.spec.scale_type = QuantScaleType::kBf16; }},
      {"flush", [](DeviceRule* r) { r->rule.window_flush = 0; }},
  };
  for (const auto& [name, change] : mistakes) {
    Total total;
    RunFormats(shape, 5, SmallRun() ? 7 : 1, change, &total);
    EXPECT_GT(total.different, 0) << name;
  }
}

}  // namespace
}  // namespace plumbline
