#include "services/report/sweep.h"

#include <algorithm>
#include <cctype>

namespace plumbline {
namespace {

size_t AfterBits(const std::string& name, size_t from) {
  size_t at = from;
  while (at < name.size() && std::isdigit(static_cast<unsigned char>(name[at])) != 0) ++at;
  return at;
}

// Where the digits of "int4" begin; npos for other formats and for plans of several formats.
size_t BitsAt(const std::string& name) {
  const size_t from = name.rfind("*:", 0) == 0 ? 2 : 0;
  const bool integer = name.compare(from, 3, "int") == 0 && AfterBits(name, from + 3) > from + 3;
  return integer && name.find(',') == std::string::npos ? from + 3 : std::string::npos;
}

const std::string& FormatOf(const v1::ConditionResult& condition) {
  return condition.plan().empty() ? condition.name() : condition.plan();
}

}  // namespace

int FormatBits(const std::string& name) {
  const size_t at = BitsAt(name);
  if (at == std::string::npos) return 0;
  int bits = 0;
  for (size_t i = at; i < AfterBits(name, at) && bits < 100; ++i) bits = bits * 10 + name[i] - '0';
  return bits;
}

std::string FormatFamily(const std::string& name) {
  const size_t at = BitsAt(name);
  return at == std::string::npos ? "" : name.substr(AfterBits(name, at));
}

bool IsTarget(const v1::Report& report, const v1::ConditionResult& condition) {
  return report.has_target() && condition.plan() == report.target().plan();
}

std::vector<v1::ConditionResult> OrderedSweep(const v1::Report& report) {
  std::vector<v1::ConditionResult> sweep(report.sweep().begin(), report.sweep().end());
  const bool present = std::any_of(sweep.begin(), sweep.end(), [&report](const auto& condition) {
    return IsTarget(report, condition);
  });
  if (!sweep.empty() && report.has_target() && !present) {
    sweep.push_back(report.target());
    sweep.back().set_name("target");
  }
  std::stable_sort(sweep.begin(), sweep.end(), [](const auto& a, const auto& b) {
    return FormatBits(FormatOf(a)) > FormatBits(FormatOf(b));
  });
  return sweep;
}

}  // namespace plumbline
