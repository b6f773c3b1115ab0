#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/engine/model_bundle.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/engine_bundle/bundle_folder.h"

namespace plumbline {
namespace {

using ::plumbline::testing::Json;
using ::plumbline::testing::ManifestOf;
using ::plumbline::testing::SmallFiles;
using ::plumbline::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

TEST(BundleManifestTest, ReadsEveryField) {
  const Json json = ManifestOf(SmallFiles());
  ASSERT_OK_AND_ASSIGN(const BundleManifest manifest, ParseBundleManifest(json.dump()));
  EXPECT_EQ(manifest.name, "tiny");
  EXPECT_EQ(manifest.license, "apache-2.0");
  EXPECT_EQ(manifest.model_digest, json["model_digest"]);
  EXPECT_EQ(manifest.files.size(), 3u);
  EXPECT_EQ(manifest.files.at("model.safetensors").bytes, 8);
}

TEST(BundleManifestTest, AnotherDigestOfAFileNeedsAnotherModelDigest) {
  Json json = ManifestOf(SmallFiles());
  json["files"]["config.json"]["sha256"] = std::string(64, 'a');
  EXPECT_THAT(ParseBundleManifest(json.dump()),
              StatusIs(absl::StatusCode::kDataLoss,
                       AllOf(HasSubstr("model_digest"),
                             HasSubstr(json["model_digest"].get<std::string>().substr(0, 16)))));
}

TEST(BundleManifestTest, TheListOfTrainedOnPromptsIsCoveredAndMakesNoOtherModel) {
  Json json = ManifestOf(SmallFiles());
  json["files"][kTrainedOnFile] = {{"sha256", std::string(64, 'a')}, {"bytes", 65}};
  ASSERT_OK_AND_ASSIGN(const BundleManifest manifest, ParseBundleManifest(json.dump()));
  EXPECT_EQ(manifest.model_digest, ManifestOf(SmallFiles())["model_digest"]);
  EXPECT_TRUE(manifest.has_trained_on());
  EXPECT_EQ(manifest.files.at(kTrainedOnFile).bytes, 65);
}

class BadFileNameTest : public ::testing::TestWithParam<const char*> {};

TEST_P(BadFileNameTest, IsRefusedByName) {
  auto files = SmallFiles();
  files[GetParam()] = "x";
  const absl::Status status = ParseBundleManifest(ManifestOf(files).dump()).status();
  EXPECT_THAT(status, StatusIs(kInvalid, HasSubstr(Json(GetParam()).dump())));
}

INSTANTIATE_TEST_SUITE_P(Names, BadFileNameTest,
                         ::testing::Values("../evil.json", "/etc/passwd", "a/b.safetensors", "..",
                                           ".", ".hidden", "", "manifest.json", "white space.json",
                                           "new\nline.json"));

struct BadManifest {
  const char* name;
  const char* change;
  std::vector<std::string> message;
};

class BadManifestTest : public ::testing::TestWithParam<BadManifest> {};

TEST_P(BadManifestTest, IsRefusedWithPathAndValue) {
  Json json = ManifestOf(SmallFiles());
  json.merge_patch(Json::parse(GetParam().change));
  const absl::Status status = ParseBundleManifest(json.dump()).status();
  EXPECT_EQ(status.code(), kInvalid) << status;
  for (const std::string& part : GetParam().message) {
    EXPECT_THAT(std::string(status.message()), HasSubstr(part));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Manifests, BadManifestTest,
    ::testing::Values(
        BadManifest{"OtherFormat", R"({"format": "plumbline-bundle/9"})", {"plumbline-bundle/9"}},
        BadManifest{"NoFormat", R"({"format": null})", {"format"}},
        BadManifest{"NameIsNumber", R"({"name": 3})", {"name", "3"}},
        BadManifest{"NoDigest", R"({"model_digest": null})", {"model_digest"}},
        BadManifest{"FilesIsList", R"({"files": [1]})", {"files", "[1]"}},
        BadManifest{"FileIsText", R"({"files": {"config.json": "x"}})", {"config.json"}},
        BadManifest{"ShortDigest",
                    R"({"files": {"config.json": {"sha256": "abc"}}})",
                    {"config.json", "sha256", "abc"}},
        BadManifest{"UpperCaseDigest",
                    R"({"files": {"config.json": {"sha256":
                     "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}}})",
                    {"sha256", "AAAA"}},
        BadManifest{
            "NegativeBytes", R"({"files": {"config.json": {"bytes": -1}}})", {"bytes", "-1"}},
        BadManifest{"BytesOverInt64",
                    R"({"files": {"config.json": {"bytes": 18446744073709551615}}})",
                    {"bytes", "18446744073709551615"}},
        BadManifest{"NoTokenizer", R"({"files": {"tokenizer.json": null}})", {"tokenizer.json"}},
        BadManifest{"NoWeights", R"({"files": {"model.safetensors": null}})", {"safetensors"}}),
    [](const auto& info) { return info.param.name; });

TEST(BundleManifestTest, BrokenJsonIsRefused) {
  EXPECT_THAT(ParseBundleManifest("{\"format\""), StatusIs(kInvalid, HasSubstr("JSON")));
  EXPECT_THAT(ParseBundleManifest(std::string(100'000, '[')), StatusIs(kInvalid));
}

}  // namespace
}  // namespace plumbline
