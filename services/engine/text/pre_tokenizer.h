// Pre-tokenizers of tokenizer.json: ByteLevel, Split, Digits and Sequence of them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "nlohmann/json_fwd.hpp"

namespace plumbline {

class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  // Replaces each piece by the pieces it splits into; none of them is empty. Pieces are valid
  // UTF-8.
  virtual void Apply(std::vector<std::string>& pieces) const = 0;
  // Whether some step writes pieces in the byte-level alphabet.
  virtual bool IsByteLevel() const { return false; }

  // InvalidArgument names what is not supported.
  static absl::StatusOr<std::unique_ptr<PreTokenizer>> Create(const nlohmann::json& json);
};

}  // namespace plumbline
