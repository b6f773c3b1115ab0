#include "services/rpc/status.h"

#include "tests/support/status_matchers.h"

namespace plumbline {
namespace {

TEST(GrpcStatus, EveryCodeGoesThereAndBack) {
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
  EXPECT_OK(FromGrpcStatus(grpc::Status::OK));
  for (int code = 1; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), "why");
    const grpc::Status grpc_status = ToGrpcStatus(status);
    EXPECT_EQ(static_cast<int>(grpc_status.error_code()), code);
    EXPECT_EQ(FromGrpcStatus(grpc_status), status);
  }
  EXPECT_EQ(ToGrpcStatus(absl::NotFoundError("")).error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(ToGrpcStatus(absl::DataLossError("")).error_code(), grpc::StatusCode::DATA_LOSS);
}

TEST(GrpcStatus, LongMessagesAreCutBetweenCharacters) {
  std::string message;
  while (message.size() < 5000) message += "\u2019";
  for (int shift = 0; shift < 3; ++shift) {
    const std::string cut =
        ToGrpcStatus(absl::InternalError(std::string(shift, 'a') + message)).error_message();
    EXPECT_LE(cut.size(), kMaxStatusMessageBytes);
    EXPECT_GT(cut.size(), kMaxStatusMessageBytes - 8);
    EXPECT_EQ((cut.size() - shift - std::string("... (cut)").size()) % 3, 0u);
    EXPECT_THAT(cut, ::testing::EndsWith("... (cut)"));
  }
  const std::string whole(kMaxStatusMessageBytes, 'x');
  EXPECT_EQ(ToGrpcStatus(absl::InternalError(whole)).error_message(), whole);
}

TEST(ExitCode, TellsTheUsersMistakesFromFailures) {
  EXPECT_EQ(ExitCode(absl::OkStatus()), 0);
  EXPECT_EQ(ExitCode(absl::InvalidArgumentError("")), 2);
  EXPECT_EQ(ExitCode(absl::NotFoundError("")), 2);
  EXPECT_EQ(ExitCode(absl::UnavailableError("")), 1);
  EXPECT_EQ(ExitCode(absl::InternalError("")), 1);
}

}  // namespace
}  // namespace plumbline
