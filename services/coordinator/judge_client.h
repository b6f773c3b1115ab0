// The judge service as the coordinator needs it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "plumbline/v1/config.pb.h"
#include "plumbline/v1/judge.pb.h"

namespace plumbline {

// Thread safe. Unavailable: the judge is away, try again later.
class JudgeClient {
 public:
  virtual ~JudgeClient() = default;
  // One verdict for each request, in order.
  virtual absl::StatusOr<std::vector<v1::Verdict>> Judge(
      const std::vector<v1::JudgeRequest>& requests) = 0;
  virtual absl::StatusOr<std::vector<v1::JudgeCard>> ListJudges() = 0;
};

// Over gRPC. Connects lazily. InvalidArgument: the endpoint.
absl::StatusOr<std::unique_ptr<JudgeClient>> MakeJudgeClient(const v1::Endpoint& endpoint);

}  // namespace plumbline
