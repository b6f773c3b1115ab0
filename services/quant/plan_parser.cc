#include "services/quant/plan_parser.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/quant/format_rules.h"
#include "services/quant/plan_scanner.h"

namespace plumbline {
namespace {

struct SimpleOption {
  const char* word;
  OptionKind kind;
  void (*apply)(TensorFormat*);
};

constexpr SimpleOption kSimpleOptions[] = {
    {"sym", OptionKind::kSymmetry, [](TensorFormat* f) { f->symmetry = Symmetry::kSym; }},
    {"asym", OptionKind::kSymmetry, [](TensorFormat* f) { f->symmetry = Symmetry::kAsym; }},
    {"affine", OptionKind::kSymmetry, [](TensorFormat* f) { f->symmetry = Symmetry::kAffine; }},
    {"tensor", OptionKind::kGranularity,
     [](TensorFormat* f) { f->granularity = Granularity::kTensor; }},
    {"token", OptionKind::kGranularity,
     [](TensorFormat* f) { f->granularity = Granularity::kToken; }},
    {"channel", OptionKind::kGranularity,
     [](TensorFormat* f) { f->granularity = Granularity::kChannel; }},
    {"step", OptionKind::kScope, [](TensorFormat* f) { f->scope = Scope::kStep; }},
    {"prompt", OptionKind::kScope, [](TensorFormat* f) { f->scope = Scope::kPrompt; }},
    {"joint", OptionKind::kHeads, [](TensorFormat* f) { f->heads = HeadGrouping::kJoint; }},
    {"perhead", OptionKind::kHeads, [](TensorFormat* f) { f->heads = HeadGrouping::kPerHead; }},
    {"pre", OptionKind::kPlace, [](TensorFormat* f) { f->place = RopePlace::kPreRope; }},
    {"post", OptionKind::kPlace, [](TensorFormat* f) { f->place = RopePlace::kPostRope; }},
    {"seen", OptionKind::kPrefill, [](TensorFormat* f) { f->prefill = PrefillReads::kSeen; }},
    {"exact", OptionKind::kPrefill, [](TensorFormat* f) { f->prefill = PrefillReads::kExact; }},
    {"f32", OptionKind::kArithmetic, [](TensorFormat* f) { f->arithmetic = Arithmetic::kF32; }},
    {"native", OptionKind::kArithmetic,
     [](TensorFormat* f) { f->arithmetic = Arithmetic::kNative; }},
    {"s32", OptionKind::kScale, [](TensorFormat* f) { f->scale_type = ScaleType::kF32; }},
    {"s16", OptionKind::kScale, [](TensorFormat* f) { f->scale_type = ScaleType::kF16; }},
    {"sb16", OptionKind::kScale, [](TensorFormat* f) { f->scale_type = ScaleType::kBf16; }},
    {"hadamard", OptionKind::kHadamard, [](TensorFormat* f) { f->hadamard = true; }},
    {"satur", OptionKind::kFp8Overflow,
     [](TensorFormat* f) { f->fp8_overflow = Fp8Overflow::kSaturate; }},
    {"torchcast", OptionKind::kFp8Overflow,
     [](TensorFormat* f) { f->fp8_overflow = Fp8Overflow::kTorchCast; }},
};

constexpr KvType kTypes[] = {KvType::kFp,   KvType::kInt2,    KvType::kInt3,
                             KvType::kInt4, KvType::kInt5,    KvType::kInt6,
                             KvType::kInt8, KvType::kFp8E4m3, KvType::kFp8E5m2};

// Expanded list entries a plan may hold, so that a short text cannot fill the memory.
constexpr int64_t kMaxListedIndices = 1 << 20;

class PlanParser {
 public:
  PlanParser(absl::string_view text, const PlanParseOptions& options)
      : scanner_(text), options_(options) {}

  absl::StatusOr<Plan> ParseWholePlan() {
    std::vector<PlanRule> rules;
    do {
      PLUMB_ASSIGN_OR_RETURN(PlanRule rule, ParseRule());
      rules.push_back(std::move(rule));
    } while (scanner_.Take(','));
    if (!scanner_.AtEnd()) {
      return scanner_.ErrorHere("expected '.', '|' or ',' after a format",
                                "a plan is layers:format[|format], rules joined by ','");
    }
    return Plan(std::move(rules));
  }

  absl::StatusOr<TensorFormat> ParseWholeFormat() {
    PLUMB_ASSIGN_OR_RETURN(TensorFormat format, ParseOneFormat());
    if (!scanner_.AtEnd()) {
      return scanner_.ErrorHere("expected '.' or the end of the format",
                                absl::StrCat("options: ", kOptionNames));
    }
    return NormalizedFormat(std::move(format), TensorRole::kKey);
  }

 private:
  absl::StatusOr<PlanRule> ParseRule() {
    PlanRule rule;
    if (!scanner_.Take('*')) {
      PLUMB_ASSIGN_OR_RETURN(rule.layers, ParseIndexList(kMaxLayerIndex, "layer", /*comma=*/false));
    }
    if (!scanner_.Take(':')) {
      return scanner_.ErrorHere("expected ':' between layers and format",
                                "layers: * or numbers and ranges such as 0-3+7");
    }
    PLUMB_ASSIGN_OR_RETURN(TensorFormat key, ParseOneFormat());
    TensorFormat value = key;
    if (scanner_.Take('|')) {
      PLUMB_ASSIGN_OR_RETURN(value, ParseOneFormat());
    }
    rule.format.key = NormalizedFormat(std::move(key), TensorRole::kKey);
    rule.format.value = NormalizedFormat(std::move(value), TensorRole::kValue);
    return rule;
  }

  // range *("+" range); inside parentheses ',' joins as well.
  absl::StatusOr<std::vector<int32_t>> ParseIndexList(int32_t max, const char* what, bool comma) {
    std::vector<int32_t> list;
    do {
      scanner_.SkipBlanks();
      const size_t at = scanner_.position();
      PLUMB_ASSIGN_OR_RETURN(int32_t first, ParseIndex(max, what));
      int32_t last = first;
      if (scanner_.Take('-')) {
        PLUMB_ASSIGN_OR_RETURN(last, ParseIndex(max, what));
      }
      if (last < first) {
        return scanner_.ErrorAt(at, absl::StrCat("range ", first, "-", last, " runs backwards"),
                                absl::StrCat("write ", last, "-", first));
      }
      listed_ += last - first + 1;
      if (listed_ > kMaxListedIndices) {
        return scanner_.ErrorAt(
            at, absl::StrCat("the plan lists more than ", kMaxListedIndices, " indices"),
            "write * for all layers, or fewer rules");
      }
      for (int32_t i = first; i <= last; ++i) list.push_back(i);
    } while (scanner_.Take('+') || (comma && scanner_.Take(',')));
    std::sort(list.begin(), list.end());
    list.erase(std::unique(list.begin(), list.end()), list.end());
    return list;
  }

  absl::StatusOr<int32_t> ParseIndex(int32_t max, const char* what) {
    scanner_.SkipBlanks();
    const size_t at = scanner_.position();
    const absl::string_view word = scanner_.TakeWord();
    const std::optional<int32_t> value = ParseNumber(word, max);
    if (value) return *value;
    return scanner_.ErrorAt(
        at,
        word.empty() ? absl::StrCat("expected a ", what, " number")
                     : absl::StrCat("bad ", what, " '", Printable(word), "'"),
        absl::StrCat(what, " numbers are 0 to ", max, "; lists look like 0-3+7"));
  }

  absl::StatusOr<TensorFormat> ParseOneFormat() {
    TensorFormat format;
    positions_.fill(std::nullopt);
    PLUMB_RETURN_IF_ERROR(ParseType(&format));
    while (scanner_.Take('.')) PLUMB_RETURN_IF_ERROR(ParseOption(&format));
    if (format.is_fp8() && format.granularity == Granularity::kNone) {
      format.granularity = Granularity::kTensor;
    }
    if (auto problem = FindProblem(format, options_.paper_quirks)) {
      return scanner_.ErrorAt(PositionOf(problem->kind), problem->message, problem->hint);
    }
    return format;
  }

  absl::Status ParseType(TensorFormat* format) {
    scanner_.SkipBlanks();
    const size_t at = scanner_.position();
    const absl::string_view word = scanner_.TakeWord();
    for (KvType type : kTypes) {
      if (word == TypeText(type)) {
        format->type = type;
        positions_[static_cast<int>(OptionKind::kType)] = at;
        return absl::OkStatus();
      }
    }
    return scanner_.ErrorAt(
        at, word.empty() ? "expected a type" : absl::StrCat("unknown type '", Printable(word), "'"),
        absl::StrCat("types: ", kTypeNames));
  }

  absl::Status ParseOption(TensorFormat* format) {
    scanner_.SkipBlanks();
    const size_t at = scanner_.position();
    const absl::string_view word = scanner_.TakeWord();
    if (format->is_fp()) return scanner_.ErrorAt(at, "fp takes no options", "write fp alone");
    for (const SimpleOption& option : kSimpleOptions) {
      if (word == option.word) {
        PLUMB_RETURN_IF_ERROR(Claim(option.kind, at));
        option.apply(format);
        return absl::OkStatus();
      }
    }
    return ParseOptionWithArgument(word, at, format);
  }

  absl::Status ParseOptionWithArgument(absl::string_view word, size_t at, TensorFormat* format) {
    if (word == "heads") return ParseSelect("head", at, &format->select_heads);
    if (word == "ch") return ParseSelect("channel", at, &format->select_channels);
    if (word == "calibrated") return ParseCalibrated(at, format);
    if (ConsumePrefix(&word, "group")) {
      PLUMB_RETURN_IF_ERROR(Claim(OptionKind::kGranularity, at));
      format->granularity = Granularity::kGroup;
      return TakeCount(word, at, 2, kMaxGroupSize, "group<G>: G channels", &format->group_size);
    }
    if (ConsumePrefix(&word, "window")) {
      PLUMB_RETURN_IF_ERROR(Claim(OptionKind::kScope, at));
      format->scope = Scope::kWindow;
      const size_t x = word.find('x');
      if (x != absl::string_view::npos) {
        PLUMB_RETURN_IF_ERROR(TakeCount(word.substr(x + 1), at, 1, kMaxWindow,
                                        "window<R>x<G>: G tokens", &format->window_flush));
        word = word.substr(0, x);
      }
      return TakeCount(word, at, 1, kMaxWindow, "window<R>[x<G>]: R tokens", &format->window);
    }
    if (ConsumePrefix(&word, "sink")) {
      PLUMB_RETURN_IF_ERROR(Claim(OptionKind::kSink, at));
      return TakeCount(word, at, 1, kMaxWindow, "sink<N>: N tokens", &format->sink_tokens);
    }
    return scanner_.ErrorAt(at,
                            word.empty() ? "expected an option after '.'"
                                         : absl::StrCat("unknown option '", Printable(word), "'"),
                            absl::StrCat("options: ", kOptionNames));
  }

  absl::Status ParseSelect(const char* what, size_t at, std::vector<int32_t>* list) {
    PLUMB_RETURN_IF_ERROR(Claim(OptionKind::kSelect, at));
    PLUMB_RETURN_IF_ERROR(Expect('('));
    PLUMB_ASSIGN_OR_RETURN(*list, ParseIndexList(kMaxChannelIndex, what, /*comma=*/true));
    return Expect(')');
  }

  absl::Status ParseCalibrated(size_t at, TensorFormat* format) {
    PLUMB_RETURN_IF_ERROR(Claim(OptionKind::kScope, at));
    PLUMB_RETURN_IF_ERROR(Expect('('));
    scanner_.SkipBlanks();
    format->scope = Scope::kCalibrated;
    format->calibration_digest = std::string(scanner_.TakeWord());
    if (format->calibration_digest.size() > 64) {
      return scanner_.ErrorAt(at, "calibration digest of more than 64 characters",
                              "calibrated(<digest>) takes 8 to 64 lower-case hexadecimal digits");
    }
    return Expect(')');
  }

  absl::Status Expect(char c) {
    if (scanner_.Take(c)) return absl::OkStatus();
    return scanner_.ErrorHere(absl::StrCat("expected '", std::string(1, c), "'"),
                              "lists and digests stand in parentheses, such as heads(0+2)");
  }

  absl::Status TakeCount(absl::string_view digits, size_t at, int32_t min, int32_t max,
                         const char* usage, int32_t* value) {
    const std::optional<int32_t> number = ParseNumber(digits, max);
    if (!number || *number < min) {
      return scanner_.ErrorAt(at, absl::StrCat("bad number '", Printable(digits), "'"),
                              absl::StrCat(usage, ", ", min, " to ", max));
    }
    *value = *number;
    return absl::OkStatus();
  }

  // Refuses a second option of one kind.
  absl::Status Claim(OptionKind kind, size_t at) {
    std::optional<size_t>& position = positions_[static_cast<int>(kind)];
    if (position) {
      return scanner_.ErrorAt(
          at, absl::StrCat("a second ", OptionKindName(kind), " option"),
          absl::StrCat("the first is at character ", *position + 1, "; keep one"));
    }
    position = at;
    return absl::OkStatus();
  }

  size_t PositionOf(OptionKind kind) const {
    const auto& position = positions_[static_cast<int>(kind)];
    if (position) return *position;
    // A rule about an option left at its default, such as the missing step of asym.channel.
    const auto& granularity = positions_[static_cast<int>(OptionKind::kGranularity)];
    return granularity ? *granularity : *positions_[static_cast<int>(OptionKind::kType)];
  }

  PlanScanner scanner_;
  const PlanParseOptions options_;
  std::array<std::optional<size_t>, kOptionKinds> positions_;
  int64_t listed_ = 0;
};

absl::Status CheckSize(absl::string_view text, const PlanParseOptions& options) {
  if (text.size() <= options.max_text_bytes) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("plan: text of ", text.size(), " bytes; at most ", options.max_text_bytes));
}

}  // namespace

absl::StatusOr<Plan> ParsePlan(absl::string_view text, const PlanParseOptions& options) {
  PLUMB_RETURN_IF_ERROR(CheckSize(text, options));
  absl::StatusOr<Plan> plan = PlanParser(text, options).ParseWholePlan();
  if (plan.ok() || !PlanParser(absl::StrCat("*:", text), options).ParseWholePlan().ok())
    return plan;
  // A format without layers, and nothing else wrong.
  return absl::InvalidArgumentError(absl::StrCat(
      plan.status().message(), "\n    did you mean *:", text.size() <= 200 ? text : "...",
      " (that format on every layer)?"));
}

absl::StatusOr<TensorFormat> ParseFormat(absl::string_view text, const PlanParseOptions& options) {
  PLUMB_RETURN_IF_ERROR(CheckSize(text, options));
  return PlanParser(text, options).ParseWholeFormat();
}

}  // namespace plumbline
