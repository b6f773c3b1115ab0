// Counts every call of a server. Internal to services/rpc.
#pragma once

#include <grpcpp/support/server_interceptor.h>

#include <memory>

#include "services/rpc/metrics.h"

namespace plumbline {

// metrics outlives the server.
std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> CallMetricsInterceptor(
    Metrics* metrics);

// "OK", "INVALID_ARGUMENT", ...; "UNKNOWN" for a number that gRPC does not define.
const char* GrpcCodeName(int code);

}  // namespace plumbline
