// Runs a capture task: the prompts once through the engine, unquantized, and their keys, values and
// queries of the asked layers, and the statistics of others, to the capture service as one stream.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "plumbline/v1/capture.grpc.pb.h"
#include "plumbline/v1/work.pb.h"
#include "services/rpc/client.h"
#include "services/worker/engine_runner.h"
#include "services/worker/model_catalog.h"

namespace plumbline {

// What the capture says of the model: sizes, layers and the rotation of its keys. InvalidArgument
// for a rotation that the engine does not have either.
absl::StatusOr<v1::CaptureHeader> CaptureHeaderOf(const v1::CaptureTask& task,
                                                  const CatalogEntry& entry);

class CaptureSender {
 public:
  using Done = std::function<void(v1::CaptureResult)>;
  virtual ~CaptureSender() = default;
  // Returns at once; `done` comes from another thread, exactly once unless the sender dies first.
  virtual void Start(const v1::CaptureTask& task, Done done) = 0;
};

class EngineCaptureSender final : public CaptureSender {
 public:
  // client may be null: then each task ends in FailedPrecondition. None owned but the client.
  EngineCaptureSender(const ModelCatalog* catalog, EngineRunner* runner,
                      std::unique_ptr<RpcClient<v1::ActivationCapture>> client);
  ~EngineCaptureSender() override;
  void Start(const v1::CaptureTask& task, Done done) override;

 private:
  struct Waiting {
    v1::CaptureTask task;
    Done done;
  };
  void Run();
  absl::StatusOr<v1::CaptureResult> Execute(const v1::CaptureTask& task);

  const ModelCatalog* const catalog_;
  EngineRunner* const runner_;
  const std::unique_ptr<RpcClient<v1::ActivationCapture>> client_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Waiting> waiting_;  // guarded by mutex_
  bool stopping_ = false;         // guarded by mutex_
  std::thread thread_;
};

}  // namespace plumbline
