// The text of an answer as a stream: code points, folded characters, units. Internal to the judge.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace plumbline {

struct CodePoint {
  char32_t value = 0;  // U+FFFD for a byte that is no UTF-8
  int64_t offset = 0;  // of its first byte
  std::string bytes;   // as they came
};

// Splits bytes into code points, however the bytes are cut into pushes.
class CodePointReader {
 public:
  using Sink = std::function<void(const CodePoint&)>;
  void Push(absl::string_view bytes, const Sink& sink);
  void Finish(const Sink& sink);  // what is left of a broken last character

 private:
  void EmitBroken(const Sink& sink);
  std::string pending_;
  size_t wanted_ = 0;
  int64_t offset_ = 0;  // of the first byte of pending_
};

// ' for every apostrophe and quote that stands for one; blanks become ' '; ASCII letters lower
// case.
std::string FoldCodePoint(const CodePoint& point);
std::string FoldText(absl::string_view text);  // whole strings; runs of blanks become one

// Cuts a text into the units on which loops are looked for when token boundaries are unknown: words
// of at most 16 characters, runs of at most 8 equal signs, single ideographs. Blanks separate.
class UnitCutter {
 public:
  using Sink = std::function<void(uint64_t unit)>;  // hash of the unit
  void Push(const CodePoint& point, const Sink& sink);
  void Finish(const Sink& sink);

 private:
  enum class Kind { kNone, kWord, kSign };
  void Begin(Kind kind, const CodePoint& point);
  Kind kind_ = Kind::kNone;
  int length_ = 0;
  char32_t last_ = 0;
  uint64_t hash_ = 0;
};

// Finds a loop in a stream of items: a period of at most 5 at least 4 times and 12 items, or one of
// 6 to 16 at least 3 times. Short ones need more: "ha ha ha ha" or a ruled line is none.
class LoopFinder {
 public:
  static constexpr int kMaxPeriod = 16;
  // Items that a loop of this period covers at least.
  static constexpr int MinSpan(int period) {
    constexpr int kShort = 5, kShortSpan = 12;
    return period > kShort ? 3 * period : period * 4 > kShortSpan ? period * 4 : kShortSpan;
  }

  // True when the loop's end has just been reached.
  bool Push(uint64_t item);
  int period() const { return period_; }  // 0 = none found

 private:
  std::vector<uint64_t> items_;
  std::array<int, kMaxPeriod + 1> run_ = {};  // consecutive items equal to the one `period` earlier
  int period_ = 0;
};

// Share of distinct 4-grams; 1 when there are fewer than kMinFourGrams.
inline constexpr int kMinFourGrams = 16;
double DistinctFourGramRatio(const std::vector<uint64_t>& items);

}  // namespace plumbline
