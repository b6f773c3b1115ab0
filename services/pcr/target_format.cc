#include "services/pcr/target_format.h"

#include <algorithm>
#include <array>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"

namespace plumbline {
namespace {

constexpr std::array<absl::string_view, 9> kTypes = {"fp",   "int2", "int3",     "int4",    "int5",
                                                     "int6", "int8", "fp8_e4m3", "fp8_e5m2"};
constexpr std::array<absl::string_view, 11> kKept = {
    "joint", "perhead", "pre", "post", "seen", "exact", "f32", "native", "s32", "s16", "sb16"};

template <typename Range>
bool Contains(const Range& range, absl::string_view word) {
  return std::find(range.begin(), range.end(), word) != range.end();
}

// Splits at a separator outside parentheses, blanks stripped.
std::vector<std::string> SplitOutside(absl::string_view text, char separator) {
  std::vector<std::string> parts(1);
  int depth = 0;
  for (const char c : text) {
    depth += c == '(' ? 1 : c == ')' ? -1 : 0;
    if (c == separator && depth == 0) {
      parts.emplace_back();
    } else if (!absl::ascii_isspace(static_cast<unsigned char>(c))) {
      parts.back().push_back(c);
    }
  }
  return parts;
}

}  // namespace

int TargetFormat::Side::bits() const {
  if (type == "fp") return 0;
  return absl::StartsWith(type, "fp8") ? 8 : type.back() - '0';
}

std::string TargetFormat::Side::text() const {
  std::string text = type;
  for (const std::string& option : options) absl::StrAppend(&text, ".", option);
  return text;
}

std::string TargetFormat::Side::Edited(absl::string_view granularity) const {
  if (bits() == 0) return "fp";
  std::string text = absl::StrCat("int", bits(), ".", granularity);
  for (const std::string& option : options) {
    if (Contains(kKept, option) || absl::StartsWith(option, "sink")) {
      absl::StrAppend(&text, ".", option);
    }
  }
  return text;
}

absl::StatusOr<TargetFormat::Side> TargetFormat::ParseSide(absl::string_view text,
                                                           absl::string_view whole) {
  std::vector<std::string> words = SplitOutside(text, '.');
  if (!Contains(kTypes, words.front())) {
    return absl::InvalidArgumentError(
        absl::StrCat("target format \"", whole, "\": unknown type \"", words.front(),
                     "\"; one of: fp int2 int3 int4 int5 int6 int8 fp8_e4m3 fp8_e5m2"));
  }
  Side side;
  side.type = words.front();
  side.options.assign(words.begin() + 1, words.end());
  return side;
}

absl::StatusOr<TargetFormat> TargetFormat::Parse(absl::string_view text) {
  const std::vector<std::string> sides = SplitOutside(text, '|');
  if (sides.size() > 2) {
    return absl::InvalidArgumentError(
        absl::StrCat("target format \"", text, "\" has more than keys | values"));
  }
  TargetFormat target;
  PLUMB_ASSIGN_OR_RETURN(target.key_, ParseSide(sides.front(), text));
  PLUMB_ASSIGN_OR_RETURN(target.value_, ParseSide(sides.back(), text));
  target.text_ = Join(target.key_.text(), target.value_.text());
  if (target.max_bits() == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("target format \"", text, "\" quantizes nothing; give the format to serve"));
  }
  return target;
}

std::string TargetFormat::Join(const std::string& key, const std::string& value) {
  return key == value ? key : absl::StrCat(key, "|", value);
}

int TargetFormat::max_bits() const { return std::max(key_.bits(), value_.bits()); }

std::string TargetFormat::Group64(absl::string_view symmetry) const {
  const std::string granularity = absl::StrCat(symmetry, ".group64");
  return Join(key_.Edited(granularity), value_.Edited(granularity));
}

std::string TargetFormat::PerChannel() const {
  return Join(key_.Edited("sym.channel.prompt"), value_.Edited("sym.channel.prompt"));
}

std::optional<std::string> TargetFormat::Widened(int bits) const {
  Side key = key_;
  Side value = value_;
  bool wider = false;
  for (Side* side : {&key, &value}) {
    if (absl::StartsWith(side->type, "int") && side->bits() < bits) {
      side->type = absl::StrCat("int", bits);
      wider = true;
    }
  }
  if (!wider) return std::nullopt;
  return Join(key.text(), value.text());
}

std::string TargetFormat::FpKeys() const { return Join("fp", value_.text()); }
std::string TargetFormat::FpValues() const { return Join(key_.text(), "fp"); }

}  // namespace plumbline
