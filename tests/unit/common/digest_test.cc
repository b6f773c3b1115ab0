#include "services/common/digest.h"

#include "gtest/gtest.h"
#include "services/common/files.h"
#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

TEST(DigestTest, MatchesThePublishedVectorsOfFips180) {
  EXPECT_EQ(Sha256Hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Sha256Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(DigestTest, FileDigestEqualsTheDigestOfItsBytes) {
  const std::string path = ::testing::TempDir() + "/digest_test_file";
  const std::string bytes(3'000'000, 'q');
  ASSERT_OK(WriteFileAtomically(path, bytes));
  EXPECT_EQ(*Sha256HexOfFile(path), Sha256Hex(bytes));
  EXPECT_THAT(Sha256HexOfFile(path + "_absent"), testing::StatusIs(absl::StatusCode::kNotFound));
}

TEST(DigestBuilderTest, FieldBoundariesCount) {
  EXPECT_NE(DigestBuilder("d").Add("a", "bc").Finish(), DigestBuilder("d").Add("ab", "c").Finish());
  EXPECT_NE(DigestBuilder("d").Add("a", "x").Add("b", "").Finish(),
            DigestBuilder("d").Add("a", "").Add("b", "x").Finish());
  EXPECT_NE(DigestBuilder("d/1").Finish(), DigestBuilder("d/2").Finish());
  EXPECT_EQ(DigestBuilder("d").Add("a", 7).Finish(),
            DigestBuilder("d").Add("a", int64_t{7}).Finish());
}

}  // namespace
}  // namespace plumbline
