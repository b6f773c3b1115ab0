#include "kernels/cuda/sample.h"

#include <algorithm>
#include <cmath>
#include <thread>

#include "services/engine/sampling/logits.h"
#include "tests/gpu/device_array.h"

namespace plumbline::cuda {
namespace {

// Calls f(0..count-1) on all cores.
template <typename F>
void Parallel(int count, F f) {
  const int threads = std::max(1u, std::thread::hardware_concurrency());
  std::vector<std::thread> pool;
  for (int t = 0; t < threads; ++t) {
    pool.emplace_back([=] {
      for (int i = t; i < count; i += threads) f(i);
    });
  }
  for (std::thread& thread : pool) thread.join();
}

LogitTask CpuTask(const SampleTask& task) {
  LogitTask cpu;
  cpu.choose = task.choose;
  cpu.sampling = {task.temperature, 1.0, task.seed, task.stream};
  cpu.position = task.position;
  cpu.forced = task.forced;
  cpu.target = task.target;
  return cpu;
}

template <typename T>
class SampleTest : public testing::Test {
 protected:
  void SetUp() override { PLUMB_NEEDS_GPU(); }

  std::vector<SampleOutcome> Sample(const std::vector<T>& logits, int vocab,
                                    const std::vector<SampleTask>& tasks,
                                    std::vector<int32_t>* fed = nullptr) {
    DeviceArray<T> d_logits(logits);
    DeviceArray<SampleTask> d_tasks(tasks);
    DeviceArray<SampleOutcome> d_outcomes(tasks.size());
    DeviceArray<int32_t> d_fed(tasks.size());
    EXPECT_CUDA_OK(LaunchSample(kDtypeOf<T>, d_logits.data(), static_cast<int>(tasks.size()), vocab,
                                d_tasks.data(), d_outcomes.data(), fed ? d_fed.data() : nullptr,
                                nullptr));
    if (fed) *fed = d_fed.Read();
    return d_outcomes.Read();
  }

  // Everything but the likelihood equals ReadLogits; that is good to a few roundings a term.
  void ExpectLikeCpu(const std::vector<T>& logits, int vocab,
                     const std::vector<SampleTask>& tasks) {
    const std::vector<SampleOutcome> got = Sample(logits, vocab, tasks);
    std::vector<LogitOutcome> want(tasks.size());
    Parallel(static_cast<int>(tasks.size()), [&](int row) {
      std::vector<float> wide(vocab);
      for (int i = 0; i < vocab; ++i) wide[i] = kernels::ToFloat(logits[int64_t{row} * vocab + i]);
      want[row] = ReadLogits(wide.data(), vocab, CpuTask(tasks[row]));
    });
    for (size_t row = 0; row < tasks.size(); ++row) {
      SCOPED_TRACE(testing::Message() << "vocab " << vocab << ", row " << row);
      ASSERT_EQ(got[row].finite, want[row].finite);
      if (!want[row].finite) continue;
      EXPECT_EQ(got[row].token, want[row].token);
      EXPECT_EQ(got[row].top1, want[row].trace.top1);
      EXPECT_EQ(got[row].top2, want[row].trace.top2);
      EXPECT_EQ(got[row].top1_logit, want[row].trace.top1_logit);
      EXPECT_EQ(got[row].top2_logit, want[row].trace.top2_logit);
      if (tasks[row].choose) {
        EXPECT_EQ(got[row].top1_logit - got[row].fed_logit, want[row].trace.regret);
      }
      if (tasks[row].target >= 0) {
        EXPECT_NEAR(got[row].nll, want[row].nll, 1e-12 * (1 + std::abs(want[row].nll)));
      }
    }
  }

  static std::vector<SampleTask> Tasks(int rows, double temperature) {
    std::vector<SampleTask> tasks(rows);
    for (int row = 0; row < rows; ++row) {
      tasks[row].active = tasks[row].choose = 1;
      tasks[row].temperature = temperature;
      tasks[row].position = row % 300;
      tasks[row].seed = 0x123456789abcdefu * (row + 1);
      tasks[row].stream = ~tasks[row].seed;
    }
    return tasks;
  }
};
using Dtypes = testing::Types<float, Bf16>;
TYPED_TEST_SUITE(SampleTest, Dtypes);

const int kVocabs[] = {1, 2, 7, 100, 1003, 32000, 128256};

TYPED_TEST(SampleTest, GreedyChoosesTheTokenOfTheCpu) {
  for (int vocab : kVocabs) {
    const auto logits = RandomValues<TypeParam>(20 * size_t(vocab), vocab, 4);
    this->ExpectLikeCpu(logits, vocab, this->Tasks(20, 0));
  }
}

TYPED_TEST(SampleTest, TiesGoToTheLowerId) {
  for (int vocab : kVocabs) {
    auto logits = RandomValues<TypeParam>(20 * size_t(vocab), vocab, 4);
    for (size_t row = 0; row < 20; ++row) {
      for (int i = 0; i < vocab; i += static_cast<int>(row) + 1) {
        logits[row * vocab + (i * 7919L + row) % vocab] = Narrow<TypeParam>(row % 2 ? 50.0f : 0.0f);
      }
    }
    std::fill_n(logits.begin(), vocab, Narrow<TypeParam>(-0.0f));
    this->ExpectLikeCpu(logits, vocab, this->Tasks(20, 0));
  }
}

TYPED_TEST(SampleTest, SampledTokensEqualTheCpus) {
  for (double temperature : {0.05, 0.3, 0.7, 1.0, 1.7, 50.0}) {
    for (int vocab : {1, 7, 1003, 32000}) {
      const auto logits = RandomValues<TypeParam>(200 * size_t(vocab), vocab + 1, 3);
      this->ExpectLikeCpu(logits, vocab, this->Tasks(200, temperature));
    }
  }
  const auto logits = RandomValues<TypeParam>(256 * size_t{128256}, 5, 3);
  this->ExpectLikeCpu(logits, 128256, this->Tasks(256, 1.0));
}

// All scores are noise alone, so that the closest of races are run.
TYPED_TEST(SampleTest, SampledTokensOfEqualLogitsEqualTheCpus) {
  const int vocab = 128256, rows = 128;
  const std::vector<TypeParam> logits(size_t{rows} * vocab, Narrow<TypeParam>(1.5f));
  this->ExpectLikeCpu(logits, vocab, this->Tasks(rows, 1.0));
}

TYPED_TEST(SampleTest, NoiseDependsOnSeedStreamAndPosition) {
  const int vocab = 32000, rows = 4;
  const std::vector<TypeParam> logits(size_t{rows} * vocab, Narrow<TypeParam>(0.0f));
  std::vector<SampleTask> tasks = this->Tasks(rows, 1.0);
  for (SampleTask& task : tasks) task.seed = task.stream = task.position = 5;
  tasks[1].seed = 6;
  tasks[2].stream += uint64_t{1} << 32;
  tasks[3].position = 6;
  const auto got = this->Sample(logits, vocab, tasks);
  for (int row = 1; row < rows; ++row) EXPECT_NE(got[0].token, got[row].token) << row;
}

TYPED_TEST(SampleTest, ExtremeTemperaturesEqualTheCpu) {
  for (double temperature : {1e-30, 1e-12, 1e-5, 1e9, 1e300}) {
    const auto logits = RandomValues<TypeParam>(8 * size_t{1003}, 9, 3);
    this->ExpectLikeCpu(logits, 1003, this->Tasks(8, temperature));
  }
}

TYPED_TEST(SampleTest, LikelihoodsEqualTheCpus) {
  for (int vocab : kVocabs) {
    const auto logits = RandomValues<TypeParam>(16 * size_t(vocab), vocab, 6);
    std::vector<SampleTask> tasks = this->Tasks(16, 0);
    for (int row = 0; row < 16; ++row) {
      tasks[row].target = row * 977 % vocab;
      tasks[row].choose = row % 2;
    }
    this->ExpectLikeCpu(logits, vocab, tasks);
  }
}

TYPED_TEST(SampleTest, NonFiniteRowsSaySoAndFeedNothing) {
  const int vocab = 1003, rows = 24;
  auto logits = RandomValues<TypeParam>(size_t{rows} * vocab, 3);
  std::vector<SampleTask> tasks = this->Tasks(rows, 0.8);
  for (int row = 0; row < rows; ++row) {
    tasks[row].feed_slot = row;
    const float bad[] = {NAN, INFINITY, -INFINITY, 1.0f};
    logits[row * vocab + row * 43] = Narrow<TypeParam>(bad[row % 4]);
  }
  this->ExpectLikeCpu(logits, vocab, tasks);
  std::vector<int32_t> fed;
  const auto got = this->Sample(logits, vocab, tasks, &fed);
  for (int row = 0; row < rows; ++row) {
    EXPECT_EQ(got[row].finite, row % 4 == 3);
    EXPECT_EQ(fed[row], row % 4 == 3 ? got[row].token : -1);
  }
}

TYPED_TEST(SampleTest, ForcedTokensAreFedWhateverTheLogitsSay) {
  const int vocab = 1000, rows = 6;
  const auto logits = RandomValues<TypeParam>(size_t{rows} * vocab, 3);
  std::vector<SampleTask> tasks = this->Tasks(rows, 0.8);
  for (int row = 0; row < rows; ++row) {
    tasks[row].forced = row * 10;
    tasks[row].feed_slot = rows - 1 - row;
  }
  this->ExpectLikeCpu(logits, vocab, tasks);
  std::vector<int32_t> fed;
  this->Sample(logits, vocab, tasks, &fed);
  for (int row = 0; row < rows; ++row) EXPECT_EQ(fed[rows - 1 - row], row * 10);
}

TYPED_TEST(SampleTest, InactiveRowsAreLeftAlone) {
  const int vocab = 1000;
  const auto logits = RandomValues<TypeParam>(2 * size_t{vocab}, 3);
  std::vector<SampleTask> tasks = this->Tasks(2, 0);
  tasks[0].active = 0;
  tasks[0].feed_slot = 0;
  std::vector<int32_t> fed;
  const auto got = this->Sample(logits, vocab, tasks, &fed);
  SampleOutcome untouched;
  std::memset(static_cast<void*>(&untouched), 0xff, sizeof untouched);
  EXPECT_EQ(0, std::memcmp(&got[0], &untouched, sizeof untouched));
  EXPECT_EQ(fed[0], -1);
  EXPECT_GE(got[1].token, 0);
}

}  // namespace
}  // namespace plumbline::cuda
