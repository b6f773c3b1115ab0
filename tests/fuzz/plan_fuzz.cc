// The plan grammar: no bytes crash the parser, every error points into the text, and whatever
// parses has a canonical text that parses to the same layers.
//
// link: plumb::common absl::status absl::statusor absl::strings
// sources: services/quant/format_rules.cc services/quant/kv_bytes.cc services/quant/kv_format.cc
// sources: services/quant/plan_parser.cc services/quant/plan_resolve.cc
// sources: services/quant/plan_scanner.cc
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "absl/strings/match.h"
#include "services/quant/kv_format.h"
#include "services/quant/plan_parser.h"

namespace plumbline {
namespace {

void Require(bool holds) {
  if (!holds) abort();
}

void CheckResolved(const Plan& plan, int heads, int head_dim) {
  const auto layers = plan.Resolve(32, heads, head_dim);
  if (!layers.ok()) return;
  const std::string text = CanonicalPlanText(*layers);
  const auto again = ParsePlan(text, {.paper_quirks = true});
  Require(again.ok());
  const auto resolved = again->Resolve(32, heads, head_dim);
  Require(resolved.ok() && *resolved == *layers);
  Require(CanonicalPlanText(*resolved) == text);
  Require(KvBytesOfPlan(*layers, heads, head_dim, 100, 2, 60).total() > 0);
}

}  // namespace
}  // namespace plumbline

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace plumbline;
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  const auto plan = ParsePlan(text, {.paper_quirks = size % 2 == 0});
  if (!plan.ok()) {
    Require(absl::StrContains(plan.status().message(), "at character") || size > 65536);
    return 0;
  }
  CheckResolved(*plan, 3, 64);
  CheckResolved(*plan, 8, 80);
  return 0;
}
