#include "services/engine/cpu/numerics_class.h"

#include <ATen/Version.h>
#include <torch/headeronly/version.h>

#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "kernels/attention.h"
#include "services/engine/cpu/linear.h"

namespace plumbline {
namespace {

// Raise with every change that moves a bit of any result.
constexpr int kNumericsVersion = 1;

// The libraries choose their kernels by vendor, family and model, not by instruction set alone.
std::string CpuModel() {
  std::ifstream info("/proc/cpuinfo");
  std::string vendor = "unknown", family, model;
  for (std::string line; std::getline(info, line) && !line.empty();) {
    const std::vector<std::string> parts = absl::StrSplit(line, absl::MaxSplits(':', 1));
    if (parts.size() != 2) continue;
    const std::string value(absl::StripAsciiWhitespace(parts[1]));
    if (absl::StartsWith(line, "vendor_id")) vendor = value;
    if (absl::StartsWith(line, "cpu family")) family = value;
    if (absl::StartsWith(line, "model\t")) model = value;
  }
  return absl::StrCat(vendor, "-", family, "-", model);
}

// The version number of a library out of its banner.
std::string VersionOf(const std::string& banner) {
  for (absl::string_view word : absl::StrSplit(banner, absl::ByAnyChar(" \n()"))) {
    if (absl::ConsumePrefix(&word, "v") || (!word.empty() && isdigit(word[0]))) {
      if (!word.empty() && isdigit(word[0])) return std::string(word);
    }
  }
  return "unknown";
}

}  // namespace

std::string CpuNumericsClass(ComputeDtype dtype, int threads) {
  return absl::StrCat("cpu/", kNumericsVersion, " cpu=", CpuModel(),
                      " isa=", at::get_cpu_capability(), " torch=", TORCH_VERSION,
                      " mkl=", VersionOf(at::get_mkl_version()),
                      " onednn=", VersionOf(at::get_mkldnn_version()),
                      " dtype=", dtype == ComputeDtype::kF32 ? "fp32" : "bf16", " tile=", kTileRows,
                      " split=", kernels::kAttentionSplit, " threads=", threads);
}

}  // namespace plumbline
