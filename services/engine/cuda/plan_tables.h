// Plans as the device reads them: every distinct format once in a table of rules, every distinct
// plan once in a table of rows that point at rules.
//
// Not thread safe. Rows are uploaded when a plan is first asked for, outside of any step, and stay
// until the tables are full; then those that no sequence uses make room.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/cuda/step.h"
#include "services/engine/cuda/device_memory.h"
#include "services/engine/engine.h"
#include "services/quant/device_rules.h"

namespace plumbline {

class DevicePlan {
 public:
  int row() const { return row_; }
  // Whether a windowed format needs keys from before the rotation later on.
  bool raw_keys() const { return raw_keys_; }
  int64_t elements_per_token() const { return elements_per_token_; }
  // Of a sequence of `tokens` tokens: elements of keys and values that are held quantized.
  int64_t QuantizedElements(int64_t tokens) const;

 private:
  friend class PlanTables;
  int row_ = 0;
  bool raw_keys_ = false;
  int64_t elements_per_token_ = 0;
  struct Tensor {
    TensorFormat format;
    int64_t lanes = 0;
  };
  std::vector<Tensor> tensors_;     // keys and values by turns
  std::vector<int32_t> rule_rows_;  // likewise
};

class PlanTables {
 public:
  using Calibrations = std::vector<std::pair<const Calibration*, const Calibration*>>;

  static absl::StatusOr<std::unique_ptr<PlanTables>> Create(const cuda::ModelDims& dims,
                                                            cuda::Dtype dtype, cudaStream_t stream);

  // InvalidArgument: a format does not fit the model; names the layer. ResourceExhausted: more
  // distinct plans at one time than the tables hold.
  absl::StatusOr<std::shared_ptr<const DevicePlan>> Get(const std::vector<LayerFormat>& layers,
                                                        const Calibrations& calibrations);

  const int32_t* plan_rules() const { return plans_.as<int32_t>(); }
  const cuda::TensorRule* rules() const { return rules_.as<cuda::TensorRule>(); }

 private:
  // One format, its tables on the device, its row.
  struct Rule {
    cuda::TensorRule rule;
    DeviceBuffer tables;
    int32_t row = 0;
    bool pre_rope_window = false;
  };

  PlanTables(const cuda::ModelDims& dims, cuda::Dtype dtype, cudaStream_t stream);
  absl::StatusOr<const Rule*> GetRule(const TensorFormat& format, TensorRole role,
                                      const Calibration* calibration);
  absl::Status UploadTables(const DeviceRule& made, Rule* rule);
  absl::Status MakeRoom();

  const cuda::ModelDims dims_;
  const cuda::Dtype dtype_;
  const cudaStream_t stream_;
  DeviceBuffer plans_, rules_;
  std::map<std::string, std::unique_ptr<Rule>> rule_of_;
  std::map<std::string, std::shared_ptr<DevicePlan>> plan_of_;
  std::vector<int32_t> free_plan_rows_, free_rule_rows_;
};

}  // namespace plumbline
