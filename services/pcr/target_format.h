// Edits of a target format's text. Used by candidates.cc alone; the grammar's checks are
// services/quant's, which sees every plan before it runs.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace plumbline {

class TargetFormat {
 public:
  // InvalidArgument when a type is unknown or no side is quantized; names the text.
  static absl::StatusOr<TargetFormat> Parse(absl::string_view text);

  const std::string& text() const { return text_; }
  int max_bits() const;  // of the two sides: 2..8

  std::string Group64(absl::string_view symmetry) const;  // "int4.sym.group64"
  std::string PerChannel() const;                         // "int4.sym.channel.prompt"
  // Both integer sides at `bits`, other options kept; absent when no side is an integer narrower
  // than that.
  std::optional<std::string> Widened(int bits) const;
  std::string FpKeys() const;    // "fp|VALUES"
  std::string FpValues() const;  // "KEYS|fp"

 private:
  struct Side {
    std::string type;                  // "int4", "fp8_e4m3", "fp"
    std::vector<std::string> options;  // as written
    int bits() const;                  // 0 for fp
    std::string text() const;
    std::string Edited(absl::string_view granularity) const;
  };
  static absl::StatusOr<Side> ParseSide(absl::string_view text, absl::string_view whole);
  static std::string Join(const std::string& key, const std::string& value);

  std::string text_;
  Side key_;
  Side value_;
};

}  // namespace plumbline
