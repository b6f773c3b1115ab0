#include "services/worker/step_metrics.h"

#include <future>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/worker/engine_runner.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

using ::testing::HasSubstr;

// Finishes every sequence in the step after its Submit; a step adds fixed figures.
class FixedCostEngine : public Engine {
 public:
  const ModelShape& shape() const override { return shape_; }
  const std::string& numerics_class() const override { return numerics_class_; }
  absl::Status Submit(SequenceRequest request) override {
    waiting_.push_back(request.id);
    return absl::OkStatus();
  }
  absl::Status Cancel(uint64_t) override { return absl::OkStatus(); }
  absl::StatusOr<std::vector<SequenceResult>> Step() override {
    stats_.steps += 1;
    stats_.prompt_tokens += 7;
    stats_.decoded_tokens += 3;
    stats_.matmul_seconds += 0.5;
    stats_.attention_seconds += 0.25;
    stats_.quantize_seconds += 0.125;
    stats_.other_seconds += 0.0625;
    std::vector<SequenceResult> results(1);
    results[0].id = waiting_.back();
    waiting_.pop_back();
    return results;
  }
  int active() const override { return static_cast<int>(waiting_.size()); }
  const EngineStats& stats() const override { return stats_; }

 private:
  ModelShape shape_;
  std::string numerics_class_ = "fixed";
  std::vector<uint64_t> waiting_;
  EngineStats stats_;
};

absl::StatusOr<std::unique_ptr<Engine>> MakeEngine(const EngineOptions&) {
  return std::unique_ptr<Engine>(new FixedCostEngine);
}

CatalogEntry Model(const std::string& digest) {
  CatalogEntry entry;
  entry.info.set_model_digest(digest);
  return entry;
}

class StepMetricsTest : public ::testing::Test {
 protected:
  void RunOne(const std::string& model) {
    std::promise<void> done;
    runner_->Submit(Model(model), {}, [&](absl::StatusOr<SequenceResult> result) {
      EXPECT_OK(result);
      page_at_delivery_ = metrics_->Page();
      done.set_value();
    });
    done.get_future().wait();
  }

  std::unique_ptr<Metrics> metrics_ = Metrics::Create("test");
  std::string page_at_delivery_;
  // Room for one model, so that a second one evicts the first and its totals.
  std::unique_ptr<EngineRunner> runner_ = std::make_unique<EngineRunner>(
      MakeEngine, EngineOptions{}, 1, [this](const EngineStats& added, double seconds) {
        CountStep(added, seconds, metrics_.get());
      });
};

TEST_F(StepMetricsTest, AStepIsOnThePageBeforeItsResultIsDelivered) {
  RunOne("a");
  EXPECT_THAT(page_at_delivery_, HasSubstr("plumb_worker_tokens_total{phase=\"prompt\"} 7\n"));
  EXPECT_THAT(page_at_delivery_, HasSubstr("plumb_worker_tokens_total{phase=\"decode\"} 3\n"));
  EXPECT_THAT(page_at_delivery_, HasSubstr("plumb_worker_step_duration_seconds_count 1\n"));
  for (const auto& [part, seconds] : std::map<std::string, std::string>{
           {"matmul", "0.5"}, {"attention", "0.25"}, {"quantize", "0.125"}, {"other", "0.0625"}}) {
    EXPECT_THAT(page_at_delivery_,
                HasSubstr(absl::StrCat("plumb_worker_engine_seconds_total{part=\"", part, "\"} ",
                                       seconds, "\n")));
  }
}

TEST_F(StepMetricsTest, CountersGoOnWhenAnEngineIsEvictedAndLoadedAgain) {
  RunOne("a");
  RunOne("b");
  RunOne("a");
  EXPECT_THAT(page_at_delivery_, HasSubstr("plumb_worker_tokens_total{phase=\"prompt\"} 21\n"));
  EXPECT_THAT(page_at_delivery_,
              HasSubstr("plumb_worker_engine_seconds_total{part=\"matmul\"} 1.5\n"));
  EXPECT_THAT(page_at_delivery_, HasSubstr("plumb_worker_step_duration_seconds_count 3\n"));
}

TEST(ActiveObserverTest, ASequenceIsActiveFromItsRoundUntilItIsDelivered) {
  std::vector<int> seen;
  {
    EngineRunner runner(MakeEngine, EngineOptions{}, 1, nullptr,
                        [&](int active) { seen.push_back(active); });
    std::promise<void> done;
    runner.Submit(Model("a"), {}, [&](const absl::StatusOr<SequenceResult>&) { done.set_value(); });
    done.get_future().wait();
  }
  EXPECT_THAT(seen, ::testing::ElementsAre(1, 0));
}

TEST(CountStepTest, ADifferenceOfClocksBelowNothingCountsAsNothing) {
  const std::unique_ptr<Metrics> metrics = Metrics::Create("test");
  EngineStats added;
  added.other_seconds = -1e-9;
  CountStep(added, 0.01, metrics.get());
  EXPECT_THAT(metrics->Page(), HasSubstr("plumb_worker_engine_seconds_total{part=\"other\"} 0\n"));
}

}  // namespace
}  // namespace plumbline
