// Statistics for calibrated formats, by capture digest, layer and tensor.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "absl/status/statusor.h"
#include "plumbline/v1/capture.grpc.pb.h"
#include "services/quant/tensor_quantizer.h"
#include "services/rpc/client.h"

namespace plumbline {

struct LayerCalibration {
  Calibration key;
  Calibration value;
};

class CalibrationSource {
 public:
  virtual ~CalibrationSource() = default;
  // NotFound (no such capture or layer), Unavailable (capture service away or not configured).
  virtual absl::StatusOr<std::shared_ptr<const LayerCalibration>> Get(const std::string& digest,
                                                                      int layer) = 0;
};

// Asks the capture service once a capture and remembers it: a digest's statistics never change.
class CaptureCalibrationSource final : public CalibrationSource {
 public:
  // client is not owned and may be null: then Get answers FailedPrecondition.
  explicit CaptureCalibrationSource(RpcClient<v1::ActivationCapture>* client) : client_(client) {}
  absl::StatusOr<std::shared_ptr<const LayerCalibration>> Get(const std::string& digest,
                                                              int layer) override;

 private:
  RpcClient<v1::ActivationCapture>* const client_;
  std::mutex mutex_;
  std::map<std::string, std::map<int, std::shared_ptr<const LayerCalibration>>> known_;
};

}  // namespace plumbline
