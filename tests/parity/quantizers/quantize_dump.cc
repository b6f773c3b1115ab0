// Runs TensorQuantizer over cases from a file and writes everything it stored, for the oracle.
//
//   quantize_dump CASES RESULTS
//
// CASES: for each case a line "FORMAT f32|bf16 KV_HEADS HEAD_DIM CALIBRATED(0|1) TOKENS..." (first
// the prompt's token count, then those of each decode call), then, if calibrated, 3 * channels
// floats (absmax, min, max), then the raw rows. RESULTS: for each case a line "LANES GROUPS
// PARAMETER_ROWS HAS_ZERO QUANTIZED..." (elements held quantized after each call), then values
// [tokens, channels], parameter row of each token as int32 (-1: fp), codes [tokens, lanes], scales
// [PARAMETER_ROWS, GROUPS] and, if HAS_ZERO, zeros of the same shape.
#include <cstdio>
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "services/quant/plan_parser.h"
#include "services/quant/tensor_quantizer.h"

namespace plumbline {
namespace {

struct Case {
  TensorFormat format;
  TensorShape shape;
  bool calibrated = false;
  std::vector<int64_t> appends;
  int64_t tokens = 0;
};

class Recorder final : public QuantObserver {
 public:
  explicit Recorder(int64_t tokens) : row_(tokens, -1), tokens_(tokens) {}

  void OnBlock(const QuantizedBlock& block) override {
    lanes_ = block.lanes;
    groups_ = block.groups;
    codes_.resize(tokens_ * lanes_, 0);
    std::copy_n(block.codes, block.tokens * lanes_, codes_.begin() + block.first_token * lanes_);
    if (block.new_parameters) {
      scales_.insert(scales_.end(), block.scale, block.scale + block.parameters);
      if (block.zero != nullptr) {
        zeros_.insert(zeros_.end(), block.zero, block.zero + block.parameters);
      }
    }
    const int64_t rows = block.parameters / groups_;
    const auto last = static_cast<int32_t>(parameter_rows() - 1);
    for (int64_t t = 0; t < block.tokens; ++t) {
      row_[block.first_token + t] = rows == 1 ? last : static_cast<int32_t>(last - rows + 1 + t);
    }
  }

  int64_t parameter_rows() const {
    return groups_ == 0 ? 0 : static_cast<int64_t>(scales_.size()) / groups_;
  }

  void Write(std::ostream& out, const std::vector<int64_t>& quantized,
             const std::vector<char>& values) const {
    out << lanes_ << ' ' << groups_ << ' ' << parameter_rows() << ' ' << !zeros_.empty();
    for (int64_t count : quantized) out << ' ' << count;
    out << '\n';
    out.write(values.data(), static_cast<std::streamsize>(values.size()));
    WriteArray(out, row_);
    WriteArray(out, codes_);
    WriteArray(out, scales_);
    WriteArray(out, zeros_);
  }

 private:
  template <typename T>
  static void WriteArray(std::ostream& out, const std::vector<T>& array) {
    out.write(reinterpret_cast<const char*>(array.data()),
              static_cast<std::streamsize>(array.size() * sizeof(T)));
  }

  std::vector<int32_t> row_;
  std::vector<uint8_t> codes_;
  std::vector<float> scales_, zeros_;
  int64_t tokens_;
  int32_t lanes_ = 0, groups_ = 0;
};

bool ParseCase(const std::string& line, Case* c) {
  std::istringstream in(line);
  std::string format, dtype;
  in >> format >> dtype >> c->shape.kv_heads >> c->shape.head_dim >> c->calibrated;
  absl::StatusOr<TensorFormat> parsed = ParseFormat(format, {.paper_quirks = true});
  if (!parsed.ok()) {
    std::cerr << parsed.status().ToString() << "\n";
    return false;
  }
  c->format = *parsed;
  c->shape.dtype = dtype == "bf16" ? KvDtype::kBf16 : KvDtype::kF32;
  for (int64_t tokens; in >> tokens;) {
    c->appends.push_back(tokens);
    c->tokens += tokens;
  }
  return true;
}

bool RunCase(const Case& c, std::istream& in, std::ostream& out) {
  const int64_t channels = c.shape.flat_channels();
  Calibration calibration;
  if (c.calibrated) {
    for (auto* list :
         {&calibration.channel_absmax, &calibration.channel_min, &calibration.channel_max}) {
      list->resize(channels);
      in.read(reinterpret_cast<char*>(list->data()), channels * 4);
    }
  }
  std::vector<char> rows(c.tokens * channels * KvDtypeBytes(c.shape.dtype));
  in.read(rows.data(), static_cast<std::streamsize>(rows.size()));
  auto quantizer =
      TensorQuantizer::Create(c.format, c.shape, c.calibrated ? &calibration : nullptr);
  if (!quantizer.ok()) {
    std::cerr << quantizer.status().ToString() << "\n";
    return false;
  }
  Recorder recorder(c.tokens);
  (*quantizer)->SetObserver(&recorder);
  std::vector<int64_t> quantized;
  int64_t first = 0;
  for (size_t i = 0; i < c.appends.size(); ++i) {
    (*quantizer)
        ->Append(rows.data(), first, c.appends[i], i == 0 ? Phase::kPromptLast : Phase::kDecode);
    first += c.appends[i];
    quantized.push_back((*quantizer)->elements_quantized());
  }
  recorder.Write(out, quantized, rows);
  return in.good() && out.good();
}

int RealMain(const char* cases_path, const char* results_path) {
  std::ifstream in(cases_path, std::ios::binary);
  std::ofstream out(results_path, std::ios::binary);
  std::string line;
  while (std::getline(in, line)) {
    Case c;
    if (!ParseCase(line, &c) || !RunCase(c, in, out)) {
      std::cerr << "failed on case: " << line << "\n";
      return 1;
    }
  }
  return 0;
}

}  // namespace
}  // namespace plumbline

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: quantize_dump CASES RESULTS\n";
    return 2;
  }
  return plumbline::RealMain(argv[1], argv[2]);
}
