#include "services/worker/score_sum.h"

#include <utility>

namespace plumbline {

bool ScoreSum::Add(size_t window, const absl::StatusOr<SequenceResult>& result) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (result.ok()) {
    parts_[window] = {result->nll_sum, result->nll_tokens};
    finite_ = finite_ && result->finish_reason != FinishReason::kNonFinite;
    elements_ += result->kv_elements;
    quantized_ += result->kv_elements_quantized;
  } else {
    status_ = result.status();
  }
  return --waiting_ == 0;
}

v1::CellResult ScoreSum::Take() {
  std::lock_guard<std::mutex> lock(mutex_);
  v1::CellResult result = std::move(frame_);
  if (!status_.ok()) {
    result.mutable_status()->set_code(static_cast<int>(status_.code()));
    result.mutable_status()->set_message(std::string(status_.message()));
    return result;
  }
  result.set_finish_reason(finite_ ? v1::FINISH_REASON_LENGTH : v1::FINISH_REASON_NONFINITE);
  result.set_kv_elements(static_cast<uint64_t>(elements_));
  result.set_kv_elements_quantized(static_cast<uint64_t>(quantized_));
  if (!finite_) return result;
  Part sum;
  for (const Part& part : parts_) {
    sum.nll += part.nll;
    sum.tokens += part.tokens;
  }
  result.set_nll_sum(sum.nll);
  result.set_nll_tokens(static_cast<uint64_t>(sum.tokens));
  return result;
}

}  // namespace plumbline
