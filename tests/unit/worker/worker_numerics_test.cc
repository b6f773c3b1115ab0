#include "services/worker/worker_numerics.h"

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/common/digest.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

using ::plumbline::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// An engine whose class is its bundle's folder, as a GPU's depends on the model.
class FakeEngine final : public Engine {
 public:
  explicit FakeEngine(std::string numerics_class) : class_(std::move(numerics_class)) {}
  const ModelShape& shape() const override { return shape_; }
  const std::string& numerics_class() const override { return class_; }
  absl::Status Submit(SequenceRequest) override { return absl::OkStatus(); }
  absl::Status Cancel(uint64_t) override { return absl::OkStatus(); }
  absl::StatusOr<std::vector<SequenceResult>> Step() override {
    return std::vector<SequenceResult>();
  }
  int active() const override { return 0; }
  const EngineStats& stats() const override { return stats_; }

 private:
  const std::string class_;
  ModelShape shape_;
  EngineStats stats_;
};

ModelCatalog Catalog(const std::vector<std::string>& folders) {
  std::vector<CatalogEntry> entries;
  for (const std::string& folder : folders) {
    CatalogEntry entry;
    entry.info.set_model_digest("digest of " + folder);
    entry.info.set_name("tiny");
    entry.dir = folder;
    entries.push_back(std::move(entry));
  }
  return ModelCatalog(std::move(entries));
}

class WorkerNumericsTest : public ::testing::Test {
 protected:
  std::map<std::string, absl::Status> broken_;
  std::vector<std::string> loaded_;
  EngineRunner runner_{
      [this](const EngineOptions& options) -> absl::StatusOr<std::unique_ptr<Engine>> {
        loaded_.push_back(options.bundle_dir);
        if (const auto it = broken_.find(options.bundle_dir); it != broken_.end()) {
          return it->second;
        }
        return std::unique_ptr<Engine>(
            std::make_unique<FakeEngine>("class of " + options.bundle_dir));
      },
      EngineOptions(), /*max_loaded=*/1};
};

TEST_F(WorkerNumericsTest, AWorkerOnAGpuRefusesMoreThanOneModelBeforeItLoadsAny) {
  ModelCatalog catalog = Catalog({"models/a", "models/b"});
  EXPECT_THAT(NumericsOf(runner_, catalog, ComputeDtype::kBf16, /*on_gpu=*/true),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("hold 2 (models/a, models/b)"), HasSubstr("one"))));
  EXPECT_THAT(loaded_, IsEmpty());
}

TEST_F(WorkerNumericsTest, AWorkerOnAGpuRegistersItsModelsClass) {
  ModelCatalog catalog = Catalog({"models/b"});
  ASSERT_OK_AND_ASSIGN(const v1::NumericsClass numerics,
                       NumericsOf(runner_, catalog, ComputeDtype::kBf16, /*on_gpu=*/true));
  EXPECT_EQ(numerics.text(), "class of models/b");
  EXPECT_EQ(numerics.id(), Sha256Hex("class of models/b"));
  EXPECT_EQ(numerics.dtype(), "bf16");
  EXPECT_EQ(numerics.device(), "cuda");
}

TEST_F(WorkerNumericsTest, AWorkerOnTheCpuServesMany) {
  ModelCatalog catalog = Catalog({"models/a", "models/b"});
  ASSERT_OK_AND_ASSIGN(const v1::NumericsClass numerics,
                       NumericsOf(runner_, catalog, ComputeDtype::kF32, /*on_gpu=*/false));
  EXPECT_EQ(numerics.device(), "cpu");
  EXPECT_EQ(numerics.dtype(), "fp32");
  EXPECT_EQ(catalog.entries().size(), 2u);
}

TEST_F(WorkerNumericsTest, ABrokenBundleIsLeftOut) {
  broken_["models/a"] = absl::DataLossError("truncated");
  ModelCatalog catalog = Catalog({"models/a", "models/b"});
  ASSERT_OK_AND_ASSIGN(const v1::NumericsClass numerics,
                       NumericsOf(runner_, catalog, ComputeDtype::kF32, /*on_gpu=*/false));
  EXPECT_EQ(numerics.text(), "class of models/b");
  EXPECT_THAT(catalog.left_out(), ElementsAre(HasSubstr("truncated")));
}

// Memory that is short now is no fault of the bundle.
TEST_F(WorkerNumericsTest, OutOfMemoryDropsNoModel) {
  broken_["models/a"] = absl::ResourceExhaustedError("no memory for a product's check");
  ModelCatalog catalog = Catalog({"models/a"});
  EXPECT_THAT(NumericsOf(runner_, catalog, ComputeDtype::kBf16, /*on_gpu=*/true),
              StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_EQ(catalog.entries().size(), 1u);
}

}  // namespace
}  // namespace plumbline
