// The planner's peers over gRPC, and what else the coordinator asks of them.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "plumbline/v1/config.pb.h"
#include "services/coordinator/planner/planner.h"

namespace plumbline {

// Thread safe. Codes as in Peers; messages name service and address.
class CoordinatorPeers : public Peers {
 public:
  virtual absl::Status DeleteCapture(const std::string& capture_id) = 0;
};

// Connects lazily. InvalidArgument: an endpoint.
absl::StatusOr<std::unique_ptr<CoordinatorPeers>> MakeGrpcPeers(const v1::Endpoint& capture,
                                                                const v1::Endpoint& quantsim,
                                                                const v1::Endpoint& pcr);

}  // namespace plumbline
