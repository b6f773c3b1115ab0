// The one mapping between absl::Status and grpc::Status. Codes are equal number by number; messages
// are capped, because gRPC carries them in an HTTP/2 header with a limit of its own.
#pragma once

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace plumbline {

inline constexpr size_t kMaxStatusMessageBytes = 4096;

// A longer message is cut at a character's end and ends in "... (cut)".
grpc::Status ToGrpcStatus(const absl::Status& status);
absl::Status FromGrpcStatus(const grpc::Status& status);

// 0 for OK; 2 for what the caller must mend (InvalidArgument, NotFound, FailedPrecondition,
// OutOfRange, AlreadyExists, PermissionDenied, Unimplemented); 1 for everything else.
int ExitCode(const absl::Status& status);

}  // namespace plumbline
