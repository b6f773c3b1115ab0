// Figures as reports and sentences print them. A figure that is held to a limit is printed with as
// many digits as it takes to show on which side of the limit it lies: 5.029% against 5% is "5.03%",
// never "5.0%".
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace plumbline {

// `value` with at least `digits` decimals, and with more (at most 9) until what is printed lies on
// the same side of every limit as `value` does, or on it as `value` does. Values that differ from a
// limit by less than 1e-12 are taken to be equal to it.
std::string FixedText(double value, int digits, absl::Span<const double> limits = {});

// Of a fraction; limits are fractions too. "12.3%", or with digits = 0 "12%".
std::string PercentText(double fraction, absl::Span<const double> limits = {}, int digits = 1);

// A limit itself: one decimal, and more where it has more. "5.0%", "1.25%".
std::string LimitText(double fraction);

// "1 prompt", "2 more refusals": for nouns whose plural adds an s.
std::string CountText(uint64_t count, absl::string_view noun);

// "12.3% [8.0%, 17.9%]".
std::string PercentRangeText(double estimate, double low, double high,
                             absl::Span<const double> limits = {});

}  // namespace plumbline
