#include "services/judge/text_units.h"

#include <algorithm>

namespace plumbline {
namespace {

size_t LengthByLeadByte(unsigned char byte) {
  if (byte < 0x80) return 1;
  if (byte >= 0xC2 && byte <= 0xDF) return 2;
  if (byte >= 0xE0 && byte <= 0xEF) return 3;
  if (byte >= 0xF0 && byte <= 0xF4) return 4;
  return 0;
}

char32_t Decode(absl::string_view bytes) {
  static constexpr unsigned char kLeadMask[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
  char32_t value = static_cast<unsigned char>(bytes[0]) & kLeadMask[bytes.size()];
  for (char c : bytes.substr(1)) value = value << 6 | (static_cast<unsigned char>(c) & 0x3F);
  return value;
}

bool IsBlank(char32_t c) {
  return c == ' ' || (c >= '\t' && c <= '\r') || c == 0xA0 || (c >= 0x2000 && c <= 0x200B) ||
         c == 0x202F || c == 0x3000;
}

bool IsApostrophe(char32_t c) {
  switch (c) {
    case '\'':
    case '`':
    case 0xB4:
    case 0x2BC:
    case 0x2018:
    case 0x2019:
    case 0x201B:
    case 0x2032:
    case 0xFF07:
      return true;
    default:
      return false;
  }
}

bool IsIdeograph(char32_t c) {
  return (c >= 0x2E80 && c <= 0xA4CF) || (c >= 0xAC00 && c <= 0xD7FF) ||
         (c >= 0xF900 && c <= 0xFAFF) || c >= 0x20000;
}

bool IsWordPart(char32_t c) {
  if (c < 0x80) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '\'';
  }
  return c != 0xFFFD && !(c >= 0x80 && c < 0xC0) && !(c >= 0x2000 && c < 0x2E80) && !IsIdeograph(c);
}

uint64_t Mix(uint64_t hash, char32_t c) {
  return (hash ^ (static_cast<uint64_t>(c) + 1)) * 0x100000001B3ull;
}

constexpr int kMaxWord = 16;
constexpr int kMaxSignRun = 8;

}  // namespace

void CodePointReader::EmitBroken(const Sink& sink) {
  for (char byte : pending_) sink({0xFFFD, offset_++, std::string(1, byte)});
  pending_.clear();
}

void CodePointReader::Push(absl::string_view bytes, const Sink& sink) {
  for (char byte : bytes) {
    const bool continues = (static_cast<unsigned char>(byte) & 0xC0) == 0x80;
    if (!pending_.empty() && !continues) EmitBroken(sink);
    if (pending_.empty()) wanted_ = LengthByLeadByte(static_cast<unsigned char>(byte));
    pending_.push_back(byte);
    if (wanted_ == 0) {
      EmitBroken(sink);
    } else if (pending_.size() == wanted_) {
      const CodePoint point{Decode(pending_), offset_, pending_};
      offset_ += static_cast<int64_t>(pending_.size());
      pending_.clear();
      sink(point);
    }
  }
}

void CodePointReader::Finish(const Sink& sink) { EmitBroken(sink); }

std::string FoldCodePoint(const CodePoint& point) {
  if (IsBlank(point.value)) return " ";
  if (IsApostrophe(point.value)) return "'";
  if (point.value >= 'A' && point.value <= 'Z') {
    return std::string(1, static_cast<char>(point.value - 'A' + 'a'));
  }
  return point.bytes;
}

std::string FoldText(absl::string_view text) {
  std::string folded;
  const auto append = [&folded](const CodePoint& point) {
    const std::string next = FoldCodePoint(point);
    if (next == " " && !folded.empty() && folded.back() == ' ') return;
    folded += next;
  };
  CodePointReader reader;
  reader.Push(text, append);
  reader.Finish(append);
  return folded;
}

void UnitCutter::Begin(Kind kind, const CodePoint& point) {
  kind_ = kind;
  length_ = 1;
  last_ = point.value;
  hash_ = Mix(0xCBF29CE484222325ull, point.value);
}

void UnitCutter::Finish(const Sink& sink) {
  if (kind_ != Kind::kNone) sink(hash_);
  kind_ = Kind::kNone;
}

void UnitCutter::Push(const CodePoint& point, const Sink& sink) {
  if (IsBlank(point.value)) {
    Finish(sink);
    return;
  }
  const Kind kind = IsWordPart(point.value) ? Kind::kWord : Kind::kSign;
  const bool grows = kind == Kind::kWord ? kind_ == Kind::kWord && length_ < kMaxWord
                                         : kind_ == Kind::kSign && last_ == point.value &&
                                               length_ < kMaxSignRun && !IsIdeograph(point.value);
  if (!grows) {
    Finish(sink);
    Begin(kind, point);
    return;
  }
  ++length_;
  hash_ = Mix(hash_, point.value);
}

bool LoopFinder::Push(uint64_t item) {
  items_.push_back(item);
  const size_t last = items_.size() - 1;
  for (int period = 1; period <= kMaxPeriod; ++period) {
    const bool equal = last >= static_cast<size_t>(period) && items_[last - period] == item;
    run_[period] = equal ? run_[period] + 1 : 0;
    const int span = run_[period] + period;
    if (equal && period_ == 0 && span >= MinSpan(period)) {
      period_ = period;
      return true;
    }
  }
  return false;
}

double DistinctFourGramRatio(const std::vector<uint64_t>& items) {
  if (items.size() < static_cast<size_t>(kMinFourGrams) + 3) return 1;
  std::vector<std::array<uint64_t, 4>> grams;
  for (size_t i = 0; i + 4 <= items.size(); ++i) {
    grams.push_back({items[i], items[i + 1], items[i + 2], items[i + 3]});
  }
  const auto total = static_cast<double>(grams.size());
  std::sort(grams.begin(), grams.end());
  grams.erase(std::unique(grams.begin(), grams.end()), grams.end());
  return static_cast<double>(grams.size()) / total;
}

}  // namespace plumbline
