#include "services/engine/text/pre_tokenizer.h"

#include <unicode/uchar.h>

#include <algorithm>
#include <utility>

#include "nlohmann/json.hpp"
#include "services/common/status_macros.h"
#include "services/engine/text/byte_level.h"
#include "services/engine/text/json_access.h"
#include "services/engine/text/regex.h"
#include "services/engine/text/utf8.h"

namespace plumbline {
namespace {

constexpr int kMaxDepth = 8;
constexpr absl::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// A stretch of a piece: the delimiter itself or what lies between two of them.
struct Stretch {
  size_t begin, end;
  bool is_delimiter;
};

enum class Behavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

std::vector<Stretch> Stretches(const Regex& regex, absl::string_view text, bool invert) {
  std::vector<Stretch> stretches;
  size_t at = 0;
  for (const auto& [begin, end] : regex.FindAll(text)) {
    if (at != begin) stretches.push_back({at, begin, invert});
    stretches.push_back({begin, end, !invert});
    at = end;
  }
  if (at != text.size()) stretches.push_back({at, text.size(), invert});
  return stretches;
}

// Joins a stretch to the one before it (in the given order) where the behavior says so.
std::vector<Stretch> Join(const std::vector<Stretch>& stretches, bool contiguous) {
  std::vector<Stretch> joined;
  bool previous = false;
  for (const Stretch& stretch : stretches) {
    const bool join =
        contiguous ? stretch.is_delimiter == previous : stretch.is_delimiter && !previous;
    if (join && !joined.empty()) {
      joined.back().begin = std::min(joined.back().begin, stretch.begin);
      joined.back().end = std::max(joined.back().end, stretch.end);
    } else {
      joined.push_back(stretch);
    }
    previous = stretch.is_delimiter;
  }
  return joined;
}

std::vector<Stretch> Arrange(std::vector<Stretch> stretches, Behavior behavior) {
  switch (behavior) {
    case Behavior::kIsolated:
      return stretches;
    case Behavior::kRemoved:
      std::erase_if(stretches, [](const Stretch& s) { return s.is_delimiter; });
      return stretches;
    case Behavior::kContiguous:
      return Join(stretches, true);
    case Behavior::kMergedWithPrevious:
      return Join(stretches, false);
    case Behavior::kMergedWithNext:
      std::reverse(stretches.begin(), stretches.end());
      stretches = Join(stretches, false);
      std::reverse(stretches.begin(), stretches.end());
      return stretches;
  }
  return stretches;
}

void AppendPieces(const std::string& text, const std::vector<Stretch>& stretches,
                  std::vector<std::string>& out) {
  for (const Stretch& stretch : stretches) {
    if (stretch.end > stretch.begin) {
      out.push_back(text.substr(stretch.begin, stretch.end - stretch.begin));
    }
  }
}

class Split final : public PreTokenizer {
 public:
  Split(Regex regex, Behavior behavior, bool invert)
      : regex_(std::move(regex)), behavior_(behavior), invert_(invert) {}
  void Apply(std::vector<std::string>& pieces) const override {
    std::vector<std::string> out;
    for (const std::string& piece : pieces) {
      AppendPieces(piece, Arrange(Stretches(regex_, piece, invert_), behavior_), out);
    }
    pieces = std::move(out);
  }

 private:
  Regex regex_;
  Behavior behavior_;
  bool invert_;
};

class Digits final : public PreTokenizer {
 public:
  explicit Digits(bool individual) : individual_(individual) {}
  void Apply(std::vector<std::string>& pieces) const override {
    std::vector<std::string> out;
    for (const std::string& piece : pieces) AppendPieces(piece, StretchesOf(piece), out);
    pieces = std::move(out);
  }

 private:
  static bool IsNumeric(char32_t c) {
    if (c < 0x80) return c >= '0' && c <= '9';
    const int8_t type = u_charType(static_cast<UChar32>(c));
    return type == U_DECIMAL_DIGIT_NUMBER || type == U_LETTER_NUMBER || type == U_OTHER_NUMBER;
  }
  std::vector<Stretch> StretchesOf(const std::string& text) const {
    std::vector<Stretch> stretches;
    for (size_t at = 0; at < text.size();) {
      const Utf8Step step = DecodeUtf8(absl::string_view(text).substr(at));
      const bool digit = IsNumeric(step.codepoint);
      const bool joins =
          !stretches.empty() && stretches.back().is_delimiter == digit && !(digit && individual_);
      if (joins) {
        stretches.back().end += step.bytes;
      } else {
        stretches.push_back({at, at + step.bytes, digit});
      }
      at += step.bytes;
    }
    return stretches;
  }
  bool individual_;
};

class ByteLevel final : public PreTokenizer {
 public:
  ByteLevel(std::unique_ptr<Regex> regex, bool add_prefix_space)
      : regex_(std::move(regex)), add_prefix_space_(add_prefix_space) {}
  bool IsByteLevel() const override { return true; }
  void Apply(std::vector<std::string>& pieces) const override {
    std::vector<std::string> out;
    for (std::string& piece : pieces) {
      if (add_prefix_space_ && piece[0] != ' ') piece.insert(0, 1, ' ');
      if (regex_ == nullptr) {
        out.push_back(std::move(piece));
      } else {
        AppendPieces(piece, Stretches(*regex_, piece, false), out);
      }
    }
    for (std::string& piece : out) piece = ToByteLevel(piece);
    pieces = std::move(out);
  }

 private:
  std::unique_ptr<Regex> regex_;  // null: no split
  bool add_prefix_space_;
};

class Chain final : public PreTokenizer {
 public:
  explicit Chain(std::vector<std::unique_ptr<PreTokenizer>> parts) : parts_(std::move(parts)) {}
  bool IsByteLevel() const override {
    return std::any_of(parts_.begin(), parts_.end(),
                       [](const auto& p) { return p->IsByteLevel(); });
  }
  void Apply(std::vector<std::string>& pieces) const override {
    for (const auto& part : parts_) part->Apply(pieces);
  }

 private:
  std::vector<std::unique_ptr<PreTokenizer>> parts_;
};

constexpr absl::string_view kPath = "pre_tokenizer";

absl::StatusOr<std::unique_ptr<PreTokenizer>> BuildSplit(const Json& json) {
  PLUMB_ASSIGN_OR_RETURN(Regex regex, PatternAt(json, kPath));
  PLUMB_ASSIGN_OR_RETURN(const std::string name, StringAt(json, "behavior", kPath));
  PLUMB_ASSIGN_OR_RETURN(const bool invert, BoolAt(json, "invert", kPath, false));
  const std::pair<absl::string_view, Behavior> behaviors[] = {
      {"Removed", Behavior::kRemoved},
      {"Isolated", Behavior::kIsolated},
      {"MergedWithPrevious", Behavior::kMergedWithPrevious},
      {"MergedWithNext", Behavior::kMergedWithNext},
      {"Contiguous", Behavior::kContiguous}};
  for (const auto& [known, behavior] : behaviors) {
    if (name == known) return std::make_unique<Split>(std::move(regex), behavior, invert);
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "pre_tokenizer.behavior must be one of Removed Isolated MergedWithPrevious MergedWithNext "
      "Contiguous, got ",
      name));
}

absl::StatusOr<std::unique_ptr<PreTokenizer>> BuildByteLevel(const Json& json) {
  PLUMB_ASSIGN_OR_RETURN(const bool prefix, BoolAt(json, "add_prefix_space", kPath, true));
  PLUMB_ASSIGN_OR_RETURN(const bool use_regex, BoolAt(json, "use_regex", kPath, true));
  std::unique_ptr<Regex> regex;
  if (use_regex) {
    PLUMB_ASSIGN_OR_RETURN(Regex compiled, Regex::Compile(kGpt2Pattern));
    regex = std::make_unique<Regex>(std::move(compiled));
  }
  return std::make_unique<ByteLevel>(std::move(regex), prefix);
}

absl::StatusOr<std::unique_ptr<PreTokenizer>> Build(const Json& json, int depth) {
  PLUMB_ASSIGN_OR_RETURN(const std::string type, StringAt(json, "type", kPath));
  if (type == "Split") return BuildSplit(json);
  if (type == "ByteLevel") return BuildByteLevel(json);
  if (type == "Digits") {
    PLUMB_ASSIGN_OR_RETURN(const bool individual, BoolAt(json, "individual_digits", kPath, false));
    return std::make_unique<Digits>(individual);
  }
  if (type == "Sequence") {
    PLUMB_ASSIGN_OR_RETURN(const Json* list, ArrayAt(json, "pretokenizers", kPath));
    if (depth >= kMaxDepth) return absl::InvalidArgumentError("pre_tokenizer is nested too deeply");
    std::vector<std::unique_ptr<PreTokenizer>> parts;
    for (const Json& entry : *list) {
      PLUMB_ASSIGN_OR_RETURN(auto part, Build(entry, depth + 1));
      parts.push_back(std::move(part));
    }
    return std::make_unique<Chain>(std::move(parts));
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "pre_tokenizer.type must be one of ByteLevel Split Digits Sequence, got ", type));
}

}  // namespace

absl::StatusOr<std::unique_ptr<PreTokenizer>> PreTokenizer::Create(const Json& json) {
  PLUMB_ASSIGN_OR_RETURN(auto built, Build(json, 0));
  if (!built->IsByteLevel()) {
    return absl::InvalidArgumentError(
        "pre_tokenizer has no ByteLevel step: only byte-level BPE is supported");
  }
  return built;
}

}  // namespace plumbline
