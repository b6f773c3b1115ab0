// A service whose first `gated` calls wait until the test lets them go, and raw calls to gRPC's own
// services.
#pragma once

#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/codegen/client_unary_call.h>

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>

#include "google/protobuf/wrappers.pb.h"
#include "plumbline/v1/pcr.grpc.pb.h"

namespace plumbline::testing {

class GatedClassifier final : public v1::PcrClassifier::Service {
 public:
  explicit GatedClassifier(int gated) : gated_(gated) {}

  grpc::Status Classify(grpc::ServerContext* context, const v1::ClassifyRequest* request,
                        v1::ClassifyResponse* response) override {
    std::unique_lock<std::mutex> lock(mutex_);
    const int number = ++entered_;
    changed_.notify_all();
    while (number <= gated_ && !open_) {
      // gRPC has no hook that wakes a synchronous handler on cancellation.
      changed_.wait_for(lock, std::chrono::milliseconds(5));
      if (context->IsCancelled()) {
        ++cancelled_;
        changed_.notify_all();
        return grpc::Status(grpc::CANCELLED, "cancelled in the gate");
      }
    }
    response->set_explanation(request->target());
    return request->target() == "fail" ? grpc::Status(grpc::INVALID_ARGUMENT, "target 'fail'")
                                       : grpc::Status::OK;
  }
  void WaitUntilEntered(int calls) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return entered_ >= calls; });
  }
  void WaitUntilCancelled(int calls) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return cancelled_ >= calls; });
  }
  void Open() {
    std::lock_guard<std::mutex> lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }

 private:
  const int gated_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int entered_ = 0;    // guarded by mutex_
  int cancelled_ = 0;  // guarded by mutex_
  bool open_ = false;  // guarded by mutex_
};

enum class Serving { kUnknown = 0, kServing = 1, kNotServing = 2, kNotFound = -1, kGone = -2 };

// grpc.health.v1.Health/Check. Its request and response are, on the wire, a string and a number in
// field 1, as the wrapper types are.
inline Serving HealthOf(grpc::ChannelInterface* channel, const std::string& service) {
  google::protobuf::StringValue request;
  request.set_value(service);
  google::protobuf::Int32Value response;
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
  const grpc::internal::RpcMethod method("/grpc.health.v1.Health/Check",
                                         grpc::internal::RpcMethod::NORMAL_RPC);
  const grpc::Status status =
      grpc::internal::BlockingUnaryCall<google::protobuf::StringValue, google::protobuf::Int32Value,
                                        google::protobuf::MessageLite,
                                        google::protobuf::MessageLite>(channel, method, &context,
                                                                       request, &response);
  if (status.ok()) return static_cast<Serving>(response.value());
  return status.error_code() == grpc::NOT_FOUND ? Serving::kNotFound : Serving::kGone;
}

}  // namespace plumbline::testing
