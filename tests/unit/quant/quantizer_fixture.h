// Runs one TensorQuantizer over float rows.
#pragma once

#include <string>
#include <vector>

#include "services/quant/plan_parser.h"
#include "services/quant/tensor_quantizer.h"
#include "tests/support/status_matchers.h"

namespace plumbline {

class QuantizedSequence {
 public:
  QuantizedSequence(const std::string& format, int heads, int head_dim,
                    const Calibration* calibration = nullptr)
      : channels_(heads * head_dim) {
    auto parsed = ParseFormat(format, {.paper_quirks = true});
    EXPECT_OK(parsed) << format;
    auto quantizer = TensorQuantizer::Create(
        *parsed, {.kv_heads = heads, .head_dim = head_dim, .dtype = KvDtype::kF32}, calibration);
    EXPECT_OK(quantizer) << format;
    quantizer_ = std::move(quantizer).value();
  }

  // The first call is the prompt; x holds whole rows.
  RowRange Append(const std::vector<float>& x) {
    const int64_t first = tokens();
    rows_.insert(rows_.end(), x.begin(), x.end());
    return quantizer_->Append(rows_.data(), first, tokens() - first,
                              first == 0 ? Phase::kPromptLast : Phase::kDecode);
  }

  int64_t tokens() const { return static_cast<int64_t>(rows_.size()) / channels_; }
  const std::vector<float>& rows() const { return rows_; }
  std::vector<float> Row(int64_t t) const {
    return {rows_.begin() + t * channels_, rows_.begin() + (t + 1) * channels_};
  }
  TensorQuantizer& quantizer() { return *quantizer_; }

 private:
  const int64_t channels_;
  std::vector<float> rows_;
  std::unique_ptr<TensorQuantizer> quantizer_;
};

}  // namespace plumbline
