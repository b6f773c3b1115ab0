#include "services/engine/bundle/safetensors.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstring>
#include <numeric>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/common/files.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/engine_bundle/safetensors_bytes.h"

namespace plumbline {
namespace {

using ::plumbline::testing::Entry;
using ::plumbline::testing::IsOk;
using ::plumbline::testing::Safetensors;
using ::plumbline::testing::StatusIs;
using ::plumbline::testing::WithLength;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::Status Parse(const std::string& bytes) {
  return ParseSafetensorsHeader(bytes, bytes.size()).status();
}

std::string Floats(std::initializer_list<float> values) {
  std::string out;
  for (const float value : values) out.append(reinterpret_cast<const char*>(&value), sizeof(value));
  return out;
}

TEST(SafetensorsTest, ReadsTensorsOfEveryDtypeWithTheirValues) {
  const std::string path = JoinPath(::testing::TempDir(), "sound.safetensors");
  const std::string header = absl::StrCat(
      "{\"__metadata__\":{\"scale\":\"2\"},", Entry("a", "F32", "[2,1]", "[0,8]"), ",",
      Entry("b", "BF16", "[3]", "[8,14]"), ",", Entry("c", "F16", "[]", "[14,16]"), "}");
  ASSERT_OK(WriteFileAtomically(path, Safetensors(header, Floats({1.5f, -2.0f}) + "12345678")));
  ASSERT_OK_AND_ASSIGN(const auto file, SafetensorsFile::Open(path));
  EXPECT_EQ(file->header().metadata.at("scale"), "2");
  const TensorView a = file->View(file->header().tensors.at("a"));
  EXPECT_THAT(a.shape, ElementsAre(2, 1));
  float second = 0;
  std::memcpy(&second, static_cast<const char*>(a.data) + 4, 4);
  EXPECT_EQ(second, -2.0f);
  const TensorView b = file->View(file->header().tensors.at("b"));
  EXPECT_EQ(b.dtype, WeightDtype::kBf16);
  EXPECT_EQ(std::string(static_cast<const char*>(b.data), b.bytes), "123456");
  EXPECT_EQ(file->View(file->header().tensors.at("c")).bytes, 2u);
}

TEST(SafetensorsTest, AnEmptyTensorMaySitAnywhereBetweenOthers) {
  const std::string header =
      absl::StrCat("{", Entry("a", "F32", "[1]", "[0,4]"), ",", Entry("e", "F32", "[0,7]", "[4,4]"),
                   ",", Entry("z", "F32", "[1]", "[4,8]"), "}");
  EXPECT_OK(Parse(Safetensors(header, "12345678")));
}

struct BadHeader {
  const char* name;
  std::string bytes;
  absl::StatusCode code;
  std::vector<std::string> message;
};

class BadSafetensorsTest : public ::testing::TestWithParam<BadHeader> {};

TEST_P(BadSafetensorsTest, IsRefusedWithTheValue) {
  const absl::Status status = Parse(GetParam().bytes);
  EXPECT_EQ(status.code(), GetParam().code) << status;
  for (const std::string& part : GetParam().message) {
    EXPECT_THAT(std::string(status.message()), HasSubstr(part));
  }
}

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kLost = absl::StatusCode::kDataLoss;

std::string One(const std::string& dtype, const std::string& shape, const std::string& offsets,
                size_t data_bytes) {
  return Safetensors("{" + Entry("w", dtype, shape, offsets) + "}", std::string(data_bytes, 'x'));
}

INSTANTIATE_TEST_SUITE_P(
    Headers, BadSafetensorsTest,
    ::testing::Values(
        BadHeader{"TooShort", "1234567", kLost, {"7"}},
        BadHeader{"HugeLength", WithLength(UINT64_MAX, "{}"), kInvalid, {"18446744073709551615"}},
        BadHeader{"LengthOverLimit", WithLength(100'000'001, "{}"), kInvalid, {"100000001"}},
        BadHeader{"HeaderPastTheEnd", WithLength(50, "{}"), kLost, {"58", "10"}},
        BadHeader{"NotJson", Safetensors("{\"w\":", ""), kInvalid, {"JSON"}},
        BadHeader{"NotAnObject", Safetensors("[1,2,3]", ""), kInvalid, {"[1,2,3]"}},
        BadHeader{"NotUtf8", Safetensors("{\"\xff\":1}", ""), kInvalid, {"JSON"}},
        BadHeader{"TensorIsNoObject", Safetensors("{\"w\":7}", ""), kInvalid, {"\"w\"", "7"}},
        BadHeader{"UnknownDtype", One("I8", "[4]", "[0,4]", 4), kInvalid, {"\"w\"", "I8", "BF16"}},
        BadHeader{"NoShape", Safetensors("{\"w\":{\"dtype\":\"F32\"}}", ""), kInvalid, {"shape"}},
        BadHeader{"NegativeSize", One("F32", "[-1]", "[0,4]", 4), kInvalid, {"shape", "-1"}},
        BadHeader{"FractionalSize", One("F32", "[1.5]", "[0,4]", 4), kInvalid, {"1.5"}},
        BadHeader{"SizeProductOverflows",
                  One("F32", "[4294967296,4294967296,4]", "[0,4]", 4),
                  kInvalid,
                  {"4294967296,4294967296,4"}},
        BadHeader{
            "TooManyDimensions", One("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]", 4), kInvalid, {"8"}},
        BadHeader{"OffsetsBackwards", One("F32", "[1]", "[4,0]", 4), kInvalid, {"data_offsets"}},
        BadHeader{"OffsetsOverInt64",
                  One("F32", "[1]", "[0,18446744073709551615]", 4),
                  kInvalid,
                  {"18446744073709551615"}},
        BadHeader{"OneOffset", One("F32", "[1]", "[0]", 4), kInvalid, {"[0]"}},
        BadHeader{"SpanIsNotTheShape", One("F32", "[2]", "[0,4]", 4), kInvalid, {"4", "8"}},
        BadHeader{"DataCutOff", One("F32", "[2]", "[0,8]", 4), kLost, {"\"w\"", "8", "4"}},
        BadHeader{"Overlap",
                  Safetensors("{" + Entry("a", "F32", "[2]", "[0,8]") + "," +
                                  Entry("b", "F32", "[1]", "[4,8]") + "}",
                              "12345678"),
                  kInvalid,
                  {"\"b\"", "overlaps"}},
        BadHeader{"Hole",
                  Safetensors("{" + Entry("a", "F32", "[1]", "[0,4]") + "," +
                                  Entry("b", "F32", "[1]", "[8,12]") + "}",
                              "123456781234"),
                  kInvalid,
                  {"\"b\"", "hole"}},
        BadHeader{"BytesNobodyOwns", One("F32", "[1]", "[0,4]", 9), kInvalid, {"has"}},
        BadHeader{"Misaligned",
                  Safetensors("{" + Entry("a", "F16", "[1]", "[0,2]") + "," +
                                  Entry("b", "F32", "[1]", "[2,6]") + "}",
                              "123456"),
                  kInvalid,
                  {"\"b\"", "aligned"}},
        BadHeader{"MetadataIsNoText",
                  Safetensors("{\"__metadata__\":{\"k\":1}}", ""),
                  kInvalid,
                  {"\"k\"", "1"}}),
    [](const auto& info) { return info.param.name; });

TEST(SafetensorsTest, OpenNamesTheFile) {
  EXPECT_THAT(SafetensorsFile::Open("/nowhere/x.safetensors"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/nowhere/x.safetensors")));
  const std::string path = JoinPath(::testing::TempDir(), "empty.safetensors");
  ASSERT_OK(WriteFileAtomically(path, ""));
  EXPECT_THAT(SafetensorsFile::Open(path), StatusIs(kLost, HasSubstr(path)));
}

TEST(BundleWeightsTest, FindsTensorsOverAllFilesAndChecksTheirShape) {
  const std::string dir = JoinPath(::testing::TempDir(), "weights");
  ASSERT_OK(MakeDirectories(dir));
  ASSERT_OK(
      WriteFileAtomically(JoinPath(dir, "1.safetensors"),
                          Safetensors("{" + Entry("a", "F32", "[2]", "[0,8]") + "}", "12345678")));
  ASSERT_OK(WriteFileAtomically(JoinPath(dir, "2.safetensors"),
                                Safetensors("{" + Entry("b", "F16", "[1]", "[0,2]") + "}", "12")));
  BundleManifest manifest;
  manifest.files = {{"1.safetensors", {}}, {"2.safetensors", {}}, {"config.json", {}}};
  ASSERT_OK_AND_ASSIGN(const auto weights, BundleWeights::Open(dir, manifest));
  EXPECT_THAT(weights->Names(), ElementsAre("a", "b"));
  EXPECT_THAT(weights->Get("b", {1}), IsOk());
  EXPECT_THAT(weights->Get("c", {1}), StatusIs(absl::StatusCode::kNotFound, HasSubstr("\"c\"")));
  EXPECT_THAT(weights->Get("a", {4}),
              StatusIs(kInvalid, AllOf(HasSubstr("\"a\""), HasSubstr("[2]"), HasSubstr("[4]"))));

  ASSERT_OK(WriteFileAtomically(JoinPath(dir, "2.safetensors"),
                                Safetensors("{" + Entry("a", "F16", "[1]", "[0,2]") + "}", "12")));
  EXPECT_THAT(BundleWeights::Open(dir, manifest),
              StatusIs(kInvalid, HasSubstr("another weight file")));
}

// Pages of [data, data + bytes) that are mapped into this process.
int64_t MappedPages(const void* data, uint64_t bytes) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t first = reinterpret_cast<uintptr_t>(data) / page;
  const uintptr_t last = (reinterpret_cast<uintptr_t>(data) + bytes + page - 1) / page;
  const int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  int64_t mapped = 0;
  for (uintptr_t i = first; i < last; ++i) {
    uint64_t entry = 0;
    EXPECT_EQ(pread(fd, &entry, 8, static_cast<off_t>(i * 8)), 8);
    mapped += (entry >> 63) & 1;
  }
  close(fd);
  return mapped;
}

TEST(DropPagesTest, GivesBackATensorsPagesAndLeavesItReadable) {
  const uint64_t bytes = 1 << 20;
  const std::string path = JoinPath(::testing::TempDir(), "paged.safetensors");
  const std::string header = absl::StrCat("{", Entry("a", "F32", "[262144]", "[0,1048576]"), "}");
  ASSERT_OK(WriteFileAtomically(path, Safetensors(header, std::string(bytes, 'x'))));
  ASSERT_OK_AND_ASSIGN(const auto file, SafetensorsFile::Open(path));
  const TensorView a = file->View(file->header().tensors.at("a"));
  const auto sum = [&a] {
    const char* data = static_cast<const char*>(a.data);
    return std::accumulate(data, data + a.bytes, int64_t{0});
  };
  const int64_t before = sum();
  EXPECT_GT(MappedPages(a.data, a.bytes), 200);
  DropPages(a);
  EXPECT_LE(MappedPages(a.data, a.bytes), 2) << "the pages shared with neighbours";
  EXPECT_EQ(sum(), before);
}

}  // namespace
}  // namespace plumbline
