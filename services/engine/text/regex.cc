#define PCRE2_CODE_UNIT_WIDTH 8
#include "services/engine/text/regex.h"

#include <pcre2.h>

#include <optional>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"

namespace plumbline {
namespace {

constexpr size_t kMaxPatternBytes = 64 << 10;
constexpr uint32_t kMatchLimit = 1'000'000;
constexpr uint32_t kHeapLimitKib = 64 << 10;
constexpr size_t kJitStackBytes = 4 << 20;

// White_Space of Unicode; PCRE2's \s also takes U+180E.
constexpr absl::string_view kSpace =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr absl::string_view kWord = R"(\p{L}\p{M}\p{Nd}\p{Pc})";

absl::Status Unsupported(absl::string_view construct, absl::string_view pattern, size_t at) {
  return absl::InvalidArgumentError(
      absl::StrCat("regular expression uses ", construct, " at byte ", at,
                   ", which is not supported: ", pattern.substr(0, 200)));
}

// Rewrites one pattern. Holds the position; Run() walks to the end.
class Translator {
 public:
  explicit Translator(absl::string_view pattern) : pattern_(pattern) {}

  absl::StatusOr<std::string> Run() {
    while (at_ < pattern_.size()) {
      const char c = pattern_[at_];
      if (c == '\\') {
        PLUMB_RETURN_IF_ERROR(Escape());
      } else if (in_class_) {
        PLUMB_RETURN_IF_ERROR(InsideClass(c));
      } else {
        PLUMB_RETURN_IF_ERROR(Outside(c));
      }
    }
    return std::move(out_);
  }

 private:
  absl::Status Fail(absl::string_view construct) const {
    return Unsupported(construct, pattern_, at_);
  }
  bool Next(absl::string_view text) const { return pattern_.substr(at_, text.size()) == text; }
  void Copy(size_t bytes) {
    out_.append(pattern_.data() + at_, bytes);
    at_ += bytes;
  }

  absl::Status Outside(char c) {
    if (c == '[') {
      in_class_ = true;
      class_start_ = at_ + 1 + (Next("[^") ? 1 : 0);
      Copy(Next("[^") ? 2 : 1);
      return absl::OkStatus();
    }
    if (c == '}' && at_ + 1 < pattern_.size() && pattern_[at_ + 1] == '+') return Fail("'}+'");
    if (Next("(?")) {
      for (const absl::string_view allowed :
           {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?i)"}) {
        if (!Next(allowed)) continue;
        Copy(allowed.size());
        return absl::OkStatus();
      }
      return Fail("a group other than (?: (?i: (?i) (?> (?= (?! (?<= (?<!");
    }
    if (Next("(*")) return Fail("'(*'");
    Copy(1);
    return absl::OkStatus();
  }

  absl::Status InsideClass(char c) {
    if (c == '[') return Fail("a class inside a class");
    if (Next("&&")) return Fail("'&&' in a class");
    if (c == ']' && at_ == class_start_) return Fail("']' as the first of a class");
    if (c == ']') in_class_ = false;
    Copy(1);
    return absl::OkStatus();
  }

  void Class(absl::string_view members, bool negated) {
    if (in_class_) {
      absl::StrAppend(&out_, members);
    } else {
      absl::StrAppend(&out_, negated ? "[^" : "[", members, "]");
    }
    at_ += 2;
  }

  absl::Status Escape() {
    if (at_ + 1 >= pattern_.size()) return Fail("a backslash at the end");
    const char c = pattern_[at_ + 1];
    switch (c) {
      case 's':
      case 'S':
      case 'w':
      case 'W':
        if (in_class_ && (c == 'S' || c == 'W')) return Fail("\\S or \\W in a class");
        Class(c == 's' || c == 'S' ? kSpace : kWord, c == 'S' || c == 'W');
        return absl::OkStatus();
      case 'd':
      case 'D':
        absl::StrAppend(&out_, c == 'd' ? "\\p{Nd}" : "\\P{Nd}");
        at_ += 2;
        return absl::OkStatus();
      case 'v':
        absl::StrAppend(&out_, "\\x{b}");
        at_ += 2;
        return absl::OkStatus();
      case 'p':
      case 'P': {
        const size_t close = pattern_.find('}', at_);
        if (at_ + 2 >= pattern_.size() || pattern_[at_ + 2] != '{' || close == pattern_.npos) {
          return Fail("\\p without {name}");
        }
        Copy(close + 1 - at_);
        return absl::OkStatus();
      }
      default:
        return PlainEscape(c);
    }
  }

  absl::Status PlainEscape(char c) {
    const bool alphanumeric =
        (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    constexpr absl::string_view kSame = "rntfxA";  // the same in both dialects
    if (static_cast<unsigned char>(c) >= 0x80 || (alphanumeric && kSame.find(c) == kSame.npos)) {
      return Fail(absl::StrCat("the escape \\", alphanumeric ? std::string(1, c) : "?"));
    }
    Copy(2);
    return absl::OkStatus();
  }

  absl::string_view pattern_;
  size_t at_ = 0;
  bool in_class_ = false;
  size_t class_start_ = 0;
  std::string out_;
};

struct MatchState {
  MatchState() {
    data = pcre2_match_data_create(8, nullptr);
    context = pcre2_match_context_create(nullptr);
    stack = pcre2_jit_stack_create(32 << 10, kJitStackBytes, nullptr);
    pcre2_set_match_limit(context, kMatchLimit);
    pcre2_set_heap_limit(context, kHeapLimitKib);
    pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~MatchState() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }
  pcre2_match_data* data;
  pcre2_match_context* context;
  pcre2_jit_stack* stack;
};

std::optional<std::pair<size_t, size_t>> Search(const pcre2_code* code, absl::string_view text,
                                                size_t from, MatchState& state) {
  const auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  int found =
      pcre2_match(code, subject, text.size(), from, PCRE2_NO_UTF_CHECK, state.data, state.context);
  if (found == PCRE2_ERROR_JIT_STACKLIMIT) {
    found = pcre2_match(code, subject, text.size(), from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                        state.data, state.context);
  }
  if (found < 0) return std::nullopt;
  const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(state.data);
  if (offsets[0] < from || offsets[1] < offsets[0]) return std::nullopt;
  return std::make_pair(offsets[0], offsets[1]);
}

size_t NextCharacter(absl::string_view text, size_t at) {
  ++at;
  while (at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) ++at;
  return at;
}

}  // namespace

absl::StatusOr<std::string> TranslateOniguruma(absl::string_view pattern) {
  return Translator(pattern).Run();
}

absl::StatusOr<Regex> Regex::Compile(absl::string_view pattern) {
  if (pattern.size() > kMaxPatternBytes) {
    return absl::InvalidArgumentError(absl::StrCat("a regular expression has ", pattern.size(),
                                                   " bytes, the limit is ", kMaxPatternBytes));
  }
  PLUMB_ASSIGN_OR_RETURN(const std::string translated, TranslateOniguruma(pattern));
  return CompilePcre(translated, pattern);
}

absl::StatusOr<Regex> Regex::Literal(absl::string_view text) {
  std::string escaped;
  for (const char c : text) {
    const bool word = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (!word && static_cast<unsigned char>(c) < 0x80) {
      absl::StrAppend(&escaped, "\\x{", absl::Hex(c), "}");
    } else {
      escaped.push_back(c);
    }
  }
  return CompilePcre(escaped, text);
}

absl::StatusOr<Regex> Regex::CompilePcre(const std::string& pattern, absl::string_view shown) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code = pcre2_compile(
      reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error, &offset, nullptr);
  if (code == nullptr) {
    PCRE2_UCHAR message[256];
    pcre2_get_error_message(error, message, sizeof(message));
    return absl::InvalidArgumentError(
        absl::StrCat("regular expression: ", reinterpret_cast<const char*>(message), " at byte ",
                     offset, ": ", shown.substr(0, 200)));
  }
  // Without JIT (or where it declines) the interpreter gives the same matches, more slowly.
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
  return Regex(std::shared_ptr<const void>(code, [](const void* p) {
    pcre2_code_free(static_cast<pcre2_code*>(const_cast<void*>(p)));
  }));
}

std::vector<std::pair<size_t, size_t>> Regex::FindAll(absl::string_view text) const {
  thread_local MatchState state;
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  std::vector<std::pair<size_t, size_t>> matches;
  std::optional<size_t> last_end;
  for (size_t from = 0; from <= text.size();) {
    const auto match = Search(code, text, from, state);
    if (!match.has_value()) break;
    // An empty match right after a match does not count, as in Oniguruma's iterator.
    if (match->first == match->second && last_end == match->second) {
      from = NextCharacter(text, from);
      continue;
    }
    matches.push_back(*match);
    last_end = match->second;
    from = match->second;
  }
  return matches;
}

}  // namespace plumbline
