#include <unistd.h>

#include <filesystem>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/engine/model_bundle.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/engine_bundle/bundle_folder.h"

namespace plumbline {
namespace {

using ::plumbline::testing::IsOk;
using ::plumbline::testing::ManifestOf;
using ::plumbline::testing::SmallFiles;
using ::plumbline::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

class OpenBundleTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    dir_ = JoinPath(::testing::TempDir(), std::string("bundle_") + info->name());
    std::filesystem::remove_all(dir_);
    ASSERT_OK(MakeDirectories(dir_));
    for (const auto& [name, bytes] : SmallFiles()) Write(name, bytes);
    Write("manifest.json", ManifestOf(SmallFiles()).dump());
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }
  void Write(const std::string& name, const std::string& bytes) {
    ASSERT_OK(WriteFileAtomically(JoinPath(dir_, name), bytes));
  }
  std::string dir_;
};

TEST_F(OpenBundleTest, AcceptsASoundBundle) {
  EXPECT_THAT(OpenBundle(dir_, /*digests=*/true), IsOk());
}

TEST_F(OpenBundleTest, ChangedByteIsFoundByDigestsAlone) {
  Write("model.safetensors", "1234567X");
  EXPECT_THAT(OpenBundle(dir_, /*digests=*/false), IsOk());
  EXPECT_THAT(OpenBundle(dir_, /*digests=*/true),
              StatusIs(absl::StatusCode::kDataLoss,
                       AllOf(HasSubstr("model.safetensors"), HasSubstr(Sha256Hex("1234567X")),
                             HasSubstr(Sha256Hex("12345678")))));
}

TEST_F(OpenBundleTest, TruncatedFileIsFoundBySize) {
  Write("model.safetensors", "1234");
  EXPECT_THAT(OpenBundle(dir_, /*digests=*/false),
              StatusIs(absl::StatusCode::kDataLoss,
                       AllOf(HasSubstr("model.safetensors"), HasSubstr("4"), HasSubstr("8"))));
}

TEST_F(OpenBundleTest, MissingFileIsNamed) {
  std::filesystem::remove(JoinPath(dir_, "tokenizer.json"));
  EXPECT_THAT(OpenBundle(dir_, false),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("tokenizer.json")));
}

TEST_F(OpenBundleTest, UnlistedFileIsRefused) {
  Write("extra.bin", "x");
  EXPECT_THAT(OpenBundle(dir_, false),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("extra.bin")));
}

TEST_F(OpenBundleTest, SymbolicLinkIsRefused) {
  const std::string path = JoinPath(dir_, "config.json");
  std::filesystem::remove(path);
  ASSERT_EQ(symlink("/etc/hostname", path.c_str()), 0);
  EXPECT_THAT(OpenBundle(dir_, false),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("config.json")));
}

TEST_F(OpenBundleTest, FolderWithoutManifestAndNoFolderAreNotFound) {
  std::filesystem::remove(JoinPath(dir_, "manifest.json"));
  EXPECT_THAT(OpenBundle(dir_, false),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("manifest.json")));
  EXPECT_THAT(OpenBundle("/nowhere/model", false),
              StatusIs(absl::StatusCode::kNotFound,
                       AllOf(HasSubstr("/nowhere/model"), HasSubstr("models import"))));
}

TEST_F(OpenBundleTest, BadManifestIsNamedByPath) {
  Write("manifest.json", "{}");
  EXPECT_THAT(OpenBundle(dir_, false), StatusIs(absl::StatusCode::kInvalidArgument,
                                                HasSubstr(JoinPath(dir_, "manifest.json"))));
}

}  // namespace
}  // namespace plumbline
