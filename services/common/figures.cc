#include "services/common/figures.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace plumbline {
namespace {

constexpr int kMostDigits = 9;
constexpr double kEqual = 1e-12;

int SideOf(double value, double limit) {
  if (std::abs(value - limit) < kEqual) return 0;
  return value < limit ? -1 : 1;
}

// `scale` is what the printed number is of the value: 100 for percent.
std::string ScaledText(double value, double scale, int digits, absl::Span<const double> limits) {
  for (int shown = digits;; ++shown) {
    const std::string text = absl::StrFormat("%.*f", shown, value * scale);
    const double printed = std::strtod(text.c_str(), nullptr) / scale;
    const bool holds = std::all_of(limits.begin(), limits.end(), [&](double limit) {
      return SideOf(printed, limit) == SideOf(value, limit);
    });
    if (holds || shown >= kMostDigits || !std::isfinite(value)) return text;
  }
}

}  // namespace

std::string FixedText(double value, int digits, absl::Span<const double> limits) {
  return ScaledText(value, 1, digits, limits);
}

std::string PercentText(double fraction, absl::Span<const double> limits, int digits) {
  return absl::StrCat(ScaledText(fraction, 100, digits, limits), "%");
}

std::string LimitText(double fraction) { return PercentText(fraction, {fraction}); }

std::string CountText(uint64_t count, absl::string_view noun) {
  return absl::StrCat(count, " ", noun, count == 1 ? "" : "s");
}

std::string PercentRangeText(double estimate, double low, double high,
                             absl::Span<const double> limits) {
  return absl::StrCat(PercentText(estimate, limits), " [", PercentText(low, limits), ", ",
                      PercentText(high, limits), "]");
}

}  // namespace plumbline
