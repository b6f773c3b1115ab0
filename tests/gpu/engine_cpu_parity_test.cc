// The GPU engine against the CPU engine, which defines behaviour: same plans, same requests.
#include <algorithm>
#include <cmath>

#include "tests/gpu/engine_fixture.h"

namespace plumbline {
namespace {

using ::plumbline::testing::GpuPlans;
using ::plumbline::testing::GpuVariant;
using ::plumbline::testing::GpuVariants;
using ::plumbline::testing::OpenCpu;
using ::plumbline::testing::OpenGpu;
using ::plumbline::testing::Prompt;
using ::plumbline::testing::Request;
using ::plumbline::testing::RunAll;
using ::plumbline::testing::TinyBundle;
using Results = std::map<uint64_t, SequenceResult>;

// A product of K terms differs between two orders of summing by at most 2 K u of the sum of the
// terms' magnitudes, u = 2^-24; 7 products a layer on the way and sums of random signs (their
// magnitudes sum to about sqrt(K) of the result) give for the largest of these models
// 2 * 448 * 2^-24 * 21 * 28 products = 0.03 of the largest logit in the worst case. Errors of
// random sign stay below its square root share; a wrong kernel is off by order one. bf16 rounds
// every intermediate value to 2^-9: 28 roundings of random sign, amplified a few times.
double Bound(ComputeDtype dtype) { return dtype == ComputeDtype::kF32 ? 2e-3 : 0.25; }

// How many of a test's sequences are run.
uint64_t Few(uint64_t count) { return SmallRun() ? std::min<uint64_t>(count, 4) : count; }

class EngineCpuParityTest : public ::testing::TestWithParam<GpuVariant> {
 protected:
  void SetUp() override { SKIP_WITHOUT_GPU(); }
  EngineCpuParityTest() : bundle_(GetParam().model) {}

  std::pair<std::unique_ptr<Engine>, std::unique_ptr<Engine>> OpenBoth() {
    testing::GpuOptions options;
    options.dtype = GetParam().dtype;
    return {OpenGpu(bundle_, options), OpenCpu(bundle_, GetParam().dtype)};
  }

  TinyBundle bundle_;
};

// Forced answers keep both engines on one text, so that every step's logits can be compared.
TEST_P(EngineCpuParityTest, LogitsOfForcedTextsAgreeWithinTheBound) {
  auto [gpu, cpu] = OpenBoth();
  const auto requests = [](const Engine& engine) {
    std::vector<SequenceRequest> made;
    for (uint64_t id = 0; id < Few(24); ++id) {
      made.push_back(
          Request(engine, id, Prompt(3 + static_cast<int>(id) * 17, id + 1, 504), "*:fp", 16));
      made.back().forced_tokens = Prompt(16, id + 100, 504);
      made.back().want_steps = true;
      made.back().score_from = 1;
    }
    return made;
  };
  Results on_gpu = RunAll(gpu.get(), requests(*gpu)), on_cpu = RunAll(cpu.get(), requests(*cpu));
  double scale = 0, worst = 0, worst_nll = 0;
  for (auto& [id, expected] : on_cpu) {
    SequenceResult& result = on_gpu[id];
    ASSERT_EQ(result.steps.size(), expected.steps.size());
    for (size_t i = 0; i < expected.steps.size(); ++i) {
      const StepTrace &a = result.steps[i], &b = expected.steps[i];
      scale = std::max<double>(scale, std::fabs(b.top1_logit));
      worst = std::max<double>({worst, std::fabs(a.top1_logit - b.top1_logit),
                                std::fabs(a.top2_logit - b.top2_logit),
                                std::fabs(a.regret - b.regret)});
    }
    EXPECT_EQ(result.nll_tokens, expected.nll_tokens);
    worst_nll = std::max(worst_nll, std::fabs(result.nll_sum - expected.nll_sum) /
                                        static_cast<double>(expected.nll_tokens));
    EXPECT_EQ(result.kv_elements, expected.kv_elements);
  }
  std::printf("%s: largest logit %.3g, largest difference %.3g (bound %.3g), nll %.3g a token\n",
              GetParam().name, scale, worst, Bound(GetParam().dtype) * scale, worst_nll);
  EXPECT_GT(scale, 0);
  EXPECT_LE(worst, Bound(GetParam().dtype) * scale);
  EXPECT_LE(worst_nll, 2 * Bound(GetParam().dtype) * scale);
}

TEST_P(EngineCpuParityTest, GreedyAnswersAreTheCpus) {
  auto [gpu, cpu] = OpenBoth();
  const auto requests = [](const Engine& engine) {
    std::vector<SequenceRequest> made;
    for (uint64_t id = 0; id < Few(64); ++id) {
      made.push_back(
          Request(engine, id, Prompt(2 + static_cast<int>(id), id + 1, 504), "*:fp", 32));
    }
    return made;
  };
  Results on_gpu = RunAll(gpu.get(), requests(*gpu)), on_cpu = RunAll(cpu.get(), requests(*cpu));
  int equal = 0;
  for (auto& [id, expected] : on_cpu) equal += on_gpu[id].tokens == expected.tokens;
  std::printf("%s: %d of %zu greedy answers equal\n", GetParam().name, equal, on_cpu.size());
  if (GetParam().dtype == ComputeDtype::kF32) {
    EXPECT_GE(equal, static_cast<int>(std::ceil(0.97 * static_cast<double>(on_cpu.size()))));
  } else {
    EXPECT_GE(equal, 1);
  }
}

// Codes at a rounding boundary may fall the other way, so quantized answers part sooner; what is
// held quantized is counted alike.
TEST_P(EngineCpuParityTest, EveryPlanGivesTheCpusAnswersAndCounts) {
  auto [gpu, cpu] = OpenBoth();
  const int each = SmallRun() ? 1 : 4;
  const auto requests = [each](const Engine& engine) {
    std::vector<SequenceRequest> made;
    for (uint64_t id = 0; id < each * GpuPlans().size(); ++id) {
      made.push_back(Request(engine, id, Prompt(20 + static_cast<int>(id) % 31, id + 1, 504),
                             GpuPlans()[id / each], 16));
      made.back().jitter_seed = id % each == 3 ? id : 0;
      made.back().forced_tokens = id % each == 0 ? Prompt(16, id + 7, 504) : std::vector<int32_t>();
      made.back().want_steps = true;
    }
    return made;
  };
  Results on_gpu = RunAll(gpu.get(), requests(*gpu)), on_cpu = RunAll(cpu.get(), requests(*cpu));
  int equal = 0;
  for (size_t plan = 0; plan < GpuPlans().size(); ++plan) {
    double worst = 0, scale = 0;
    int same = 0;
    for (uint64_t id = plan * each; id < (plan + 1) * each; ++id) {
      same += on_gpu[id].tokens == on_cpu[id].tokens;
      EXPECT_EQ(on_gpu[id].finish_reason, on_cpu[id].finish_reason);
      if (on_gpu[id].tokens.size() == on_cpu[id].tokens.size()) {
        EXPECT_EQ(on_gpu[id].kv_elements, on_cpu[id].kv_elements) << GpuPlans()[plan];
        EXPECT_EQ(on_gpu[id].kv_elements_quantized, on_cpu[id].kv_elements_quantized)
            << GpuPlans()[plan];
      }
      if (id % each != 0) continue;
      for (size_t i = 0; i < on_cpu[id].steps.size(); ++i) {
        const StepTrace &a = on_gpu[id].steps[i], &b = on_cpu[id].steps[i];
        scale = std::max<double>(scale, std::fabs(b.top1_logit));
        worst = std::max<double>(worst, std::fabs(a.top1_logit - b.top1_logit));
      }
    }
    equal += same;
    std::printf("%s: %d of %d equal, forced logits differ by %.3g of %.3g: %s\n", GetParam().name,
                same, each, worst, scale, GpuPlans()[plan].c_str());
    if (GetParam().dtype == ComputeDtype::kF32) {
      // One code that falls the other way moves a logit by a share of a quantization step.
      EXPECT_LE(worst, 0.05 * scale) << GpuPlans()[plan];
    }
  }
  if (GetParam().dtype == ComputeDtype::kF32) {
    EXPECT_GE(equal, static_cast<int>(0.9 * each * static_cast<double>(GpuPlans().size())));
  }
}

TEST_P(EngineCpuParityTest, CapturesHoldTheCpusRows) {
  auto [gpu, cpu] = OpenBoth();
  const auto requests = [](const Engine& engine) {
    std::vector<SequenceRequest> made;
    for (uint64_t id = 0; id < 5; ++id) {
      made.push_back(Request(engine, id, Prompt(30 + static_cast<int>(id), id + 1, 504),
                             id % 2 == 0 ? "*:fp" : "*:int4.asym.token", 3));
      if (id != 3) made.back().capture_layers = {LayerIndex(0), LayerIndex(2)};
      made.back().jitter_seed = id == 4 ? 9 : 0;
    }
    return made;
  };
  Results on_gpu = RunAll(gpu.get(), requests(*gpu)), on_cpu = RunAll(cpu.get(), requests(*cpu));
  for (auto& [id, expected] : on_cpu) {
    SequenceResult& result = on_gpu[id];
    ASSERT_EQ(result.captured.size(), expected.captured.size());
    for (size_t i = 0; i < expected.captured.size(); ++i) {
      const CapturedLayer &a = result.captured[i], &b = expected.captured[i];
      EXPECT_EQ(a.layer.value(), b.layer.value());
      EXPECT_EQ(a.tokens, b.tokens);
      for (auto [x, y] : {std::pair(&a.keys, &b.keys), std::pair(&a.values, &b.values),
                          std::pair(&a.queries, &b.queries)}) {
        ASSERT_EQ(x->size(), y->size());
        double worst = 0, scale = 0;
        for (size_t j = 0; j < x->size(); ++j) {
          worst = std::max<double>(worst, std::fabs((*x)[j] - (*y)[j]));
          scale = std::max<double>(scale, std::fabs((*y)[j]));
        }
        EXPECT_LE(worst, Bound(GetParam().dtype) * scale);
      }
    }
  }
}

// A log probability moves by at most twice what a logit does, that is by 2 Bound of the largest
// logit. Tokens that lie further apart than twice that have the same rank on both.
TEST_P(EngineCpuParityTest, MostProbableFirstTokensAreTheCpus) {
  auto [gpu, cpu] = OpenBoth();
  constexpr int kTop = 32;
  const auto requests = [](const Engine& engine) {
    std::vector<SequenceRequest> made;
    for (uint64_t id = 0; id < Few(24); ++id) {
      made.push_back(Request(engine, id, Prompt(3 + static_cast<int>(id) * 5, id + 1, 504),
                             id % 4 == 3 ? "*:int8.asym.token" : "*:fp", 2));
      made.back().first_top = kTop;
      made.back().want_steps = true;
    }
    return made;
  };
  Results on_gpu = RunAll(gpu.get(), requests(*gpu)), on_cpu = RunAll(cpu.get(), requests(*cpu));
  double scale = 0, worst = 0;
  for (auto& [id, expected] : on_cpu) {
    scale = std::max<double>(scale, std::fabs(expected.steps.at(0).top1_logit));
  }
  const double bound = 2 * Bound(GetParam().dtype) * scale;
  int apart = 0, same = 0, compared = 0;
  for (auto& [id, expected] : on_cpu) {
    const std::vector<TopToken>& listed = on_gpu[id].first_top;
    ASSERT_EQ(listed.size(), static_cast<size_t>(kTop)) << id;
    ASSERT_EQ(expected.first_top.size(), static_cast<size_t>(kTop)) << id;
    if (id % 4 == 3) continue;  // a code may fall the other way
    for (int i = 0; i < kTop; ++i) {
      const TopToken &a = listed[i], &b = expected.first_top[i];
      worst = std::max<double>(worst, std::fabs(a.log_probability - b.log_probability));
      const auto gap = [&](int j) {
        return j < 0 || j >= kTop
                   ? HUGE_VAL
                   : std::fabs(expected.first_top[j].log_probability - b.log_probability);
      };
      same += a.token == b.token;
      ++compared;
      if (i == kTop - 1 || std::min(gap(i - 1), gap(i + 1)) <= 2 * bound) continue;
      ++apart;
      EXPECT_EQ(a.token, b.token) << "sequence " << id << ", rank " << i;
    }
  }
  std::printf(
      "%s: first tokens: %d of %d equal, %d further apart than the bound %.2g; log "
      "probabilities differ by %.2g\n",
      GetParam().name, same, compared, apart, bound, worst);
  EXPECT_GT(scale, 0);
  EXPECT_LE(worst, bound);
  if (GetParam().dtype == ComputeDtype::kF32) {
    EXPECT_GT(apart, compared / 8);
    EXPECT_GE(same, compared * 97 / 100);
  }
}

// Lists that are too long for the device are the host's, of the same logits: the device's are their
// beginning, whatever else is asked of the row.
TEST_P(EngineCpuParityTest, ListsOfTheDeviceBeginThoseOfTheHost) {
  auto [gpu, cpu] = OpenBoth();
  const auto lists = [&](int top) {
    std::vector<SequenceRequest> made;
    for (uint64_t id = 0; id < Few(40); ++id) {
      made.push_back(
          Request(*gpu, id, Prompt(3 + static_cast<int>(id), id % 7 + 1, 504), "*:fp", 3));
      SequenceRequest& request = made.back();
      request.first_top = id % 9 == 0 ? 0 : top - static_cast<int>(id % 5);
      request.want_logit_digest = id % 3 == 0;
      if (id % 4 == 1) request.sampling.temperature = 0.8;
      if (id % 8 == 1) request.sampling.top_p = 0.9;
      if (id % 6 == 5) request.forced_tokens = {5, 6, 7};
    }
    return RunAll(gpu.get(), std::move(made));
  };
  const Results by_host = lists(504), by_device = lists(64);
  for (const auto& [id, long_list] : by_host) {
    const std::vector<TopToken>& listed = by_device.at(id).first_top;
    EXPECT_EQ(by_device.at(id).tokens, long_list.tokens) << id;
    ASSERT_EQ(listed.size(), id % 9 == 0 ? 0u : 64 - id % 5) << id;
    for (size_t i = 0; i < listed.size(); ++i) {
      const TopToken& expected = long_list.first_top[i];
      EXPECT_EQ(listed[i].token, expected.token) << "sequence " << id << ", rank " << i;
      EXPECT_NEAR(listed[i].log_probability, expected.log_probability,
                  1.2e-7 * std::fabs(expected.log_probability))
          << "sequence " << id << ", rank " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, EngineCpuParityTest, ::testing::ValuesIn(GpuVariants()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace plumbline
