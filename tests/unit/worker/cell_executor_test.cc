#include "services/worker/cell_executor.h"

#include <future>

#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/engine/tiny_bundle.h"
#include "tests/unit/engine_text/small_tokenizer.h"

namespace plumbline {
namespace {

testing::TinyModel RawModel() {
  testing::TinyModel model;
  model.vocab = 303;
  model.tokenizer = testing::SmallTokenizer().dump();
  model.chat_format = false;
  return model;
}

// Answers at once with nothing, and remembers what keyed each sequence's sampling.
class StreamEngine final : public Engine {
 public:
  explicit StreamEngine(std::vector<uint64_t>* streams) : streams_(streams) {}
  const ModelShape& shape() const override { return shape_; }
  const std::string& numerics_class() const override { return class_; }
  absl::Status Submit(SequenceRequest request) override {
    streams_->push_back(request.sampling.stream);
    ids_.push_back(request.id);
    return absl::OkStatus();
  }
  absl::Status Cancel(uint64_t) override { return absl::OkStatus(); }
  absl::StatusOr<std::vector<SequenceResult>> Step() override {
    std::vector<SequenceResult> results;
    for (const uint64_t id : ids_) {
      results.emplace_back();
      results.back().id = id;
    }
    ids_.clear();
    return results;
  }
  int active() const override { return static_cast<int>(ids_.size()); }
  const EngineStats& stats() const override { return stats_; }

 private:
  std::vector<uint64_t>* const streams_;
  const ModelShape shape_;
  const std::string class_ = "fake/1";
  const EngineStats stats_;
  std::vector<uint64_t> ids_;
};

class CellExecutorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(catalog_, ModelCatalog::Create({bundle_.dir()}));
    spec_.set_kind(v1::CELL_KIND_GENERATE);
    spec_.set_model_digest(catalog_->entries()[0].info.model_digest());
    spec_.set_plan("*:fp");
    v1::ChatTurn* turn = spec_.add_turns();
    turn->set_role(v1::ROLE_USER);
    turn->set_text("hello");
    spec_.mutable_decoding()->set_raw(true);
    spec_.mutable_decoding()->set_max_new_tokens(4);
    spec_.mutable_decoding()->mutable_sampling()->set_temperature(1);
  }

  // The stream that reaches the engine.
  uint64_t StreamOf(const v1::CellSpec& spec) {
    EngineCellExecutor executor(catalog_.get(), &runner_, nullptr);
    std::promise<v1::CellResult> done;
    executor.Start("cell", spec,
                   [&done](v1::CellResult result) { done.set_value(std::move(result)); });
    const v1::CellResult result = done.get_future().get();
    EXPECT_EQ(result.status().code(), 0) << result.status().message();
    return streams_.empty() ? 0 : streams_.back();
  }

  const testing::TinyBundle bundle_{RawModel()};
  std::unique_ptr<ModelCatalog> catalog_;
  std::vector<uint64_t> streams_;  // by the runner's thread, read once it has answered
  EngineRunner runner_{[this](const EngineOptions&) -> absl::StatusOr<std::unique_ptr<Engine>> {
                         return std::unique_ptr<Engine>(std::make_unique<StreamEngine>(&streams_));
                       },
                       EngineOptions()};
  v1::CellSpec spec_;
};

TEST_F(CellExecutorTest, ABaselineAndItsConditionDrawFromOneStream) {
  v1::CellSpec condition = spec_;
  condition.set_plan("*:int4.asym.group16");
  const uint64_t stream = StreamOf(spec_);
  EXPECT_EQ(StreamOf(condition), stream);
  condition.set_jitter_seed(7);
  EXPECT_EQ(StreamOf(condition), stream);
  EXPECT_EQ(streams_.size(), 3u);
}

TEST_F(CellExecutorTest, AnotherPromptOrSampleDrawsFromAnotherStream) {
  v1::CellSpec prompt = spec_, sample = spec_;
  prompt.mutable_turns(0)->set_text("hello!");
  sample.mutable_decoding()->mutable_sampling()->set_sample_index(1);
  const uint64_t stream = StreamOf(spec_);
  EXPECT_NE(StreamOf(prompt), stream);
  EXPECT_NE(StreamOf(sample), stream);
  EXPECT_NE(StreamOf(sample), StreamOf(prompt));
}

}  // namespace
}  // namespace plumbline
