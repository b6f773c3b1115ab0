#include "services/prompts/bytes_check.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace plumbline::prompts_internal {
namespace {

// Length of the valid UTF-8 sequence at the front of `bytes`, 0 if there is none.
size_t SequenceLength(absl::string_view bytes) {
  const auto at = [&](size_t i) { return static_cast<uint8_t>(bytes[i]); };
  const auto tail = [&](size_t i) { return i < bytes.size() && (at(i) & 0xC0) == 0x80; };
  const uint8_t lead = at(0);
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) return tail(1) ? 2 : 0;
  if (lead >= 0xE0 && lead <= 0xEF) {
    if (!tail(1) || !tail(2)) return 0;
    if (lead == 0xE0 && at(1) < 0xA0) return 0;
    if (lead == 0xED && at(1) > 0x9F) return 0;
    return 3;
  }
  if (lead >= 0xF0 && lead <= 0xF4) {
    if (!tail(1) || !tail(2) || !tail(3)) return 0;
    if (lead == 0xF0 && at(1) < 0x90) return 0;
    if (lead == 0xF4 && at(1) > 0x8F) return 0;
    return 4;
  }
  return 0;
}

}  // namespace

Location LocationOf(absl::string_view bytes, size_t offset) {
  Location location;
  for (size_t i = 0; i < offset && i < bytes.size(); ++i) {
    ++location.column;
    if (bytes[i] == '\n') {
      ++location.line;
      location.column = 1;
    }
  }
  return location;
}

absl::Status RowError(const std::string& where, Location location, absl::string_view message) {
  if (location.column <= 0) {
    return absl::InvalidArgumentError(absl::StrCat(where, ":", location.line, ": ", message));
  }
  return absl::InvalidArgumentError(
      absl::StrCat(where, ":", location.line, ":", location.column, ": ", message));
}

size_t FirstInvalidUtf8(absl::string_view bytes) {
  size_t offset = 0;
  while (offset < bytes.size()) {
    const size_t length = SequenceLength(bytes.substr(offset));
    if (length == 0) return offset;
    offset += length;
  }
  return absl::string_view::npos;
}

absl::Status CheckFileBytes(absl::string_view bytes, const std::string& where) {
  const size_t nul = bytes.find('\0');
  if (nul != absl::string_view::npos) {
    return RowError(where, LocationOf(bytes, nul),
                    "NUL byte; a prompt file is UTF-8 text (is it UTF-16? convert it first)");
  }
  const size_t bad = FirstInvalidUtf8(bytes);
  if (bad != absl::string_view::npos) {
    return RowError(where, LocationOf(bytes, bad),
                    absl::StrFormat("byte 0x%02X is not valid UTF-8; save the file as UTF-8",
                                    static_cast<uint8_t>(bytes[bad])));
  }
  return absl::OkStatus();
}

}  // namespace plumbline::prompts_internal
