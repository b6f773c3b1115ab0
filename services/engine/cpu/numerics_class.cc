#include "services/engine/cpu/numerics_class.h"

#include <gnu/libc-version.h>

#include "absl/strings/str_cat.h"
#include "kernels/attention.h"
#include "services/engine/cpu/linear.h"

namespace plumbline {
namespace {

// Raise with every change that moves a bit of any result.
constexpr int kNumericsVersion = 2;

}  // namespace

std::string HostLibraryText() { return absl::StrCat("libc=", gnu_get_libc_version()); }

std::string CpuNumericsClass(ComputeDtype dtype) {
  const bool f32 = dtype == ComputeDtype::kF32;
  return absl::StrCat("cpu/", kNumericsVersion, " dtype=", f32 ? "fp32" : "bf16",
                      " products=", f32 ? ProductName<float>() : ProductName<Bf16>(),
                      " split=", kernels::kAttentionSplit, " ", HostLibraryText());
}

}  // namespace plumbline
