#include "services/engine/text/normalizer.h"

#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>
#include <unicode/stringpiece.h>

#include <utility>
#include <vector>

#include "nlohmann/json.hpp"
#include "services/common/status_macros.h"
#include "services/engine/text/json_access.h"
#include "services/engine/text/regex.h"

namespace plumbline {
namespace {

constexpr int kMaxDepth = 8;

// `tokenizers` normalizes by the tables of Unicode 9.0: characters that came later have neither a
// decomposition nor a combining class there, so marks after them keep their order.
const icu::UnicodeSet& KnownToTokenizers() {
  static const icu::UnicodeSet* const known = [] {
    UErrorCode error = U_ZERO_ERROR;
    auto* set = new icu::UnicodeSet(UNICODE_STRING_SIMPLE("[:age=9.0:]"), error);
    set->freeze();
    return set;
  }();
  return *known;
}

class UnicodeForm final : public Normalizer {
 public:
  explicit UnicodeForm(const icu::Normalizer2* form)
      : form_(new icu::FilteredNormalizer2(*form, KnownToTokenizers())) {}
  std::string Apply(std::string text) const override {
    std::string out;
    icu::StringByteSink<std::string> sink(&out);
    UErrorCode error = U_ZERO_ERROR;
    form_->normalizeUTF8(0, icu::StringPiece(text.data(), static_cast<int32_t>(text.size())), sink,
                         nullptr, error);
    return U_FAILURE(error) ? std::move(text) : out;
  }

 private:
  std::unique_ptr<icu::FilteredNormalizer2> form_;
};

class Prepend final : public Normalizer {
 public:
  explicit Prepend(std::string prefix) : prefix_(std::move(prefix)) {}
  std::string Apply(std::string text) const override {
    return text.empty() ? std::move(text) : prefix_ + text;
  }

 private:
  std::string prefix_;
};

class Replace final : public Normalizer {
 public:
  Replace(Regex pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}
  std::string Apply(std::string text) const override {
    std::string out;
    size_t at = 0;
    for (const auto& [begin, end] : pattern_.FindAll(text)) {
      out.append(text, at, begin - at);
      out.append(content_);
      at = end;
    }
    out.append(text, at, std::string::npos);
    return out;
  }

 private:
  Regex pattern_;
  std::string content_;
};

class Chain final : public Normalizer {
 public:
  explicit Chain(std::vector<std::unique_ptr<Normalizer>> parts) : parts_(std::move(parts)) {}
  std::string Apply(std::string text) const override {
    for (const auto& part : parts_) text = part->Apply(std::move(text));
    return text;
  }

 private:
  std::vector<std::unique_ptr<Normalizer>> parts_;
};

absl::StatusOr<const icu::Normalizer2*> FormOf(const std::string& type) {
  UErrorCode error = U_ZERO_ERROR;
  const icu::Normalizer2* form = type == "NFC"    ? icu::Normalizer2::getNFCInstance(error)
                                 : type == "NFD"  ? icu::Normalizer2::getNFDInstance(error)
                                 : type == "NFKC" ? icu::Normalizer2::getNFKCInstance(error)
                                                  : icu::Normalizer2::getNFKDInstance(error);
  if (U_FAILURE(error)) {
    return absl::InternalError(absl::StrCat("ICU has no ", type, " data: ", u_errorName(error)));
  }
  return form;
}

absl::StatusOr<std::unique_ptr<Normalizer>> Build(const Json& json, int depth) {
  if (json.is_null()) return std::unique_ptr<Normalizer>();
  PLUMB_ASSIGN_OR_RETURN(const std::string type, StringAt(json, "type", "normalizer"));
  if (type == "NFC" || type == "NFD" || type == "NFKC" || type == "NFKD") {
    PLUMB_ASSIGN_OR_RETURN(const icu::Normalizer2* form, FormOf(type));
    return std::make_unique<UnicodeForm>(form);
  }
  if (type == "Prepend") {
    PLUMB_ASSIGN_OR_RETURN(std::string prefix, StringAt(json, "prepend", "normalizer"));
    return std::make_unique<Prepend>(std::move(prefix));
  }
  if (type == "Replace") {
    PLUMB_ASSIGN_OR_RETURN(Regex pattern, PatternAt(json, "normalizer"));
    PLUMB_ASSIGN_OR_RETURN(std::string content, StringAt(json, "content", "normalizer"));
    return std::make_unique<Replace>(std::move(pattern), std::move(content));
  }
  if (type == "Sequence") {
    PLUMB_ASSIGN_OR_RETURN(const Json* list, ArrayAt(json, "normalizers", "normalizer"));
    if (depth >= kMaxDepth) return absl::InvalidArgumentError("normalizer is nested too deeply");
    std::vector<std::unique_ptr<Normalizer>> parts;
    for (const Json& entry : *list) {
      PLUMB_ASSIGN_OR_RETURN(auto part, Build(entry, depth + 1));
      if (part != nullptr) parts.push_back(std::move(part));
    }
    return std::make_unique<Chain>(std::move(parts));
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "normalizer.type must be one of NFC NFD NFKC NFKD Prepend Replace Sequence, got ", type));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Normalizer>> Normalizer::Create(const Json& json) {
  return Build(json, 0);
}

}  // namespace plumbline
