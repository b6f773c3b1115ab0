#include "services/engine/cuda/plan_tables.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "services/common/digest.h"
#include "services/common/status_macros.h"

namespace plumbline {
namespace {

constexpr int kPlanRows = 8192;
constexpr int kRuleRows = 16384;

absl::string_view Bytes(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

// The format, and the statistics it is bound to where it has some.
std::string RuleKey(const TensorFormat& format, TensorRole role, const Calibration* calibration) {
  std::string key = absl::StrCat(role == TensorRole::kKey ? "k " : "v ", FormatText(format));
  if (format.scope != Scope::kCalibrated || calibration == nullptr) return key;
  return absl::StrCat(key, " ",
                      DigestBuilder("calibration/1")
                          .Add("absmax", Bytes(calibration->channel_absmax))
                          .Add("min", Bytes(calibration->channel_min))
                          .Add("max", Bytes(calibration->channel_max))
                          .Finish());
}

template <typename T>
absl::Status Upload(const T* from, int64_t count, T* to, cudaStream_t stream) {
  return CudaStatus(cudaMemcpyAsync(to, from, static_cast<size_t>(count) * sizeof(T),
                                    cudaMemcpyHostToDevice, stream),
                    "uploading a plan");
}

}  // namespace

int64_t DevicePlan::QuantizedElements(int64_t tokens) const {
  int64_t elements = 0;
  for (const Tensor& tensor : tensors_) {
    elements += QuantizedTokens(tensor.format, tokens) * tensor.lanes;
  }
  return elements;
}

PlanTables::PlanTables(const cuda::ModelDims& dims, cuda::Dtype dtype, cudaStream_t stream)
    : dims_(dims), dtype_(dtype), stream_(stream) {
  for (int row = kPlanRows - 1; row >= 0; --row) free_plan_rows_.push_back(row);
  for (int row = kRuleRows - 1; row >= 0; --row) free_rule_rows_.push_back(row);
}

absl::StatusOr<std::unique_ptr<PlanTables>> PlanTables::Create(const cuda::ModelDims& dims,
                                                               cuda::Dtype dtype,
                                                               cudaStream_t stream) {
  std::unique_ptr<PlanTables> tables(new PlanTables(dims, dtype, stream));
  const int64_t plan_bytes = int64_t{kPlanRows} * dims.layers * 2 * int64_t{sizeof(int32_t)};
  PLUMB_ASSIGN_OR_RETURN(tables->plans_, DeviceBuffer::Create(plan_bytes, "plans"));
  PLUMB_ASSIGN_OR_RETURN(
      tables->rules_,
      DeviceBuffer::Create(kRuleRows * int64_t{sizeof(cuda::TensorRule)}, "formats"));
  // Rows that no sequence has are read by nothing; they are cleared so that none holds an address.
  PLUMB_RETURN_IF_ERROR(CudaStatus(
      cudaMemsetAsync(tables->plans_.data(), 0, static_cast<size_t>(plan_bytes), stream), "plans"));
  PLUMB_RETURN_IF_ERROR(
      CudaStatus(cudaMemsetAsync(tables->rules_.data(), 0,
                                 static_cast<size_t>(tables->rules_.bytes()), stream),
                 "formats"));
  return tables;
}

absl::Status PlanTables::UploadTables(const DeviceRule& made, Rule* rule) {
  Carver carver;
  const int64_t lane_channel = carver.Take(4 * static_cast<int64_t>(made.lane_channel.size()));
  const int64_t group_begin = carver.Take(4 * static_cast<int64_t>(made.group_begin.size()));
  const int64_t scale = carver.Take(4 * static_cast<int64_t>(made.frozen_scale.size()));
  const int64_t zero = carver.Take(4 * static_cast<int64_t>(made.frozen_zero.size()));
  PLUMB_ASSIGN_OR_RETURN(rule->tables, DeviceBuffer::Create(carver.total(), "a format's tables"));
  const auto send = [&](const auto& values, int64_t offset, auto** out) -> absl::Status {
    using Value = typename std::decay_t<decltype(values)>::value_type;
    if (values.empty()) return absl::OkStatus();
    Value* to = reinterpret_cast<Value*>(rule->tables.at(offset));
    *out = to;
    return Upload(values.data(), static_cast<int64_t>(values.size()), to, stream_);
  };
  PLUMB_RETURN_IF_ERROR(send(made.lane_channel, lane_channel, &rule->rule.lane_channel));
  PLUMB_RETURN_IF_ERROR(send(made.group_begin, group_begin, &rule->rule.group_begin));
  PLUMB_RETURN_IF_ERROR(send(made.frozen_scale, scale, &rule->rule.frozen_scale));
  return send(made.frozen_zero, zero, &rule->rule.frozen_zero);
}

absl::StatusOr<const PlanTables::Rule*> PlanTables::GetRule(const TensorFormat& format,
                                                            TensorRole role,
                                                            const Calibration* calibration) {
  const std::string key = RuleKey(format, role, calibration);
  if (const auto it = rule_of_.find(key); it != rule_of_.end()) return it->second.get();
  const TensorShape shape = {dims_.kv_heads, dims_.head_dim,
                             dtype_ == cuda::Dtype::kF32 ? KvDtype::kF32 : KvDtype::kBf16};
  PLUMB_ASSIGN_OR_RETURN(const DeviceRule made, BindDeviceRule(format, role, shape, calibration));
  if (free_rule_rows_.empty()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("more than ", kRuleRows, " distinct formats at one time"));
  }
  auto rule = std::make_unique<Rule>();
  rule->rule = made.rule;
  PLUMB_RETURN_IF_ERROR(UploadTables(made, rule.get()));
  rule->row = free_rule_rows_.back();
  rule->pre_rope_window = role == TensorRole::kKey && made.rule.fp == 0 &&
                          made.rule.scope == cuda::RuleScope::kWindow && made.rule.post_rope == 0;
  PLUMB_RETURN_IF_ERROR(Upload(&rule->rule, 1, rules_.as<cuda::TensorRule>() + rule->row, stream_));
  free_rule_rows_.pop_back();
  return (rule_of_[key] = std::move(rule)).get();
}

// Drops the plans that no sequence holds, and then the formats that no plan has.
absl::Status PlanTables::MakeRoom() {
  std::set<int32_t> used;
  for (auto it = plan_of_.begin(); it != plan_of_.end();) {
    if (it->second.use_count() > 1) {
      used.insert(it->second->rule_rows_.begin(), it->second->rule_rows_.end());
      ++it;
    } else {
      free_plan_rows_.push_back(it->second->row_);
      it = plan_of_.erase(it);
    }
  }
  // A step under way may still read their tables.
  PLUMB_RETURN_IF_ERROR(CudaStatus(cudaStreamSynchronize(stream_), "waiting for a step"));
  for (auto it = rule_of_.begin(); it != rule_of_.end();) {
    if (used.count(it->second->row) > 0) {
      ++it;
    } else {
      free_rule_rows_.push_back(it->second->row);
      it = rule_of_.erase(it);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const DevicePlan>> PlanTables::Get(
    const std::vector<LayerFormat>& layers, const Calibrations& calibrations) {
  const auto calibration_of = [&](size_t layer) {
    return calibrations.empty()
               ? std::pair<const Calibration*, const Calibration*>{nullptr, nullptr}
               : calibrations[layer];
  };
  std::string key;
  for (size_t i = 0; i < layers.size(); ++i) {
    absl::StrAppend(&key, RuleKey(layers[i].key, TensorRole::kKey, calibration_of(i).first), "|",
                    RuleKey(layers[i].value, TensorRole::kValue, calibration_of(i).second), "\n");
  }
  if (const auto it = plan_of_.find(key); it != plan_of_.end()) return it->second;
  const bool full = free_plan_rows_.empty() || free_rule_rows_.size() < 2 * layers.size();
  if (full) PLUMB_RETURN_IF_ERROR(MakeRoom());
  if (free_plan_rows_.empty()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("more than ", kPlanRows, " distinct plans at one time"));
  }
  auto plan = std::make_shared<DevicePlan>();
  for (size_t i = 0; i < layers.size(); ++i) {
    const auto add = [&](const TensorFormat& format, TensorRole role,
                         const Calibration* calibration) -> absl::Status {
      absl::StatusOr<const Rule*> rule = GetRule(format, role, calibration);
      if (!rule.ok()) return Annotate(rule.status(), absl::StrCat("plan, layer ", i));
      plan->tensors_.push_back({format, (*rule)->rule.lanes});
      plan->rule_rows_.push_back((*rule)->row);
      plan->raw_keys_ |= (*rule)->pre_rope_window;
      return absl::OkStatus();
    };
    PLUMB_RETURN_IF_ERROR(add(layers[i].key, TensorRole::kKey, calibration_of(i).first));
    PLUMB_RETURN_IF_ERROR(add(layers[i].value, TensorRole::kValue, calibration_of(i).second));
  }
  plan->elements_per_token_ = static_cast<int64_t>(plan->tensors_.size()) * dims_.kv_dim();
  plan->row_ = free_plan_rows_.back();
  const int64_t entries = static_cast<int64_t>(plan->rule_rows_.size());
  PLUMB_RETURN_IF_ERROR(Upload(plan->rule_rows_.data(), entries,
                               plans_.as<int32_t>() + plan->row_ * entries, stream_));
  free_plan_rows_.pop_back();
  plan_of_[key] = plan;
  return std::shared_ptr<const DevicePlan>(plan);
}

}  // namespace plumbline
