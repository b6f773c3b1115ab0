#include "services/worker/calibration_source.h"

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"

namespace plumbline {
namespace {

Calibration FromStats(const v1::ChannelStats& stats) {
  Calibration calibration;
  calibration.channel_absmax.assign(stats.absmax().begin(), stats.absmax().end());
  calibration.channel_min.assign(stats.min().begin(), stats.min().end());
  calibration.channel_max.assign(stats.max().begin(), stats.max().end());
  return calibration;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const LayerCalibration>> CaptureCalibrationSource::Get(
    const std::string& digest, int layer) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (client_ == nullptr) {
    return absl::FailedPreconditionError(
        "the plan is calibrated, but this worker has no capture endpoint in its config");
  }
  auto known = known_.find(digest);
  if (known == known_.end()) {
    v1::GetStatsRequest request;
    request.set_capture(digest);
    PLUMB_ASSIGN_OR_RETURN(const v1::GetStatsResponse response,
                           client_->Call(&v1::ActivationCapture::Stub::GetStats, request));
    auto& layers = known_[digest];
    for (const v1::LayerStats& stats : response.layers()) {
      layers[static_cast<int>(stats.layer())] = std::make_shared<LayerCalibration>(
          LayerCalibration{FromStats(stats.keys()), FromStats(stats.values())});
    }
    known = known_.find(digest);
  }
  const auto found = known->second.find(layer);
  if (found == known->second.end()) {
    return absl::NotFoundError(
        absl::StrCat("capture ", digest, " has no statistics of layer ", layer));
  }
  return found->second;
}

}  // namespace plumbline
