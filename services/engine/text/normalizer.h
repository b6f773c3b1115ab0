// Normalizers of tokenizer.json: null, NFC, NFD, NFKC, NFKD, Prepend, Replace and Sequence of them.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json_fwd.hpp"

namespace plumbline {

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  // `text` is valid UTF-8, and so is the result.
  virtual std::string Apply(std::string text) const = 0;

  // Null JSON gives nullptr: text stays as it is. InvalidArgument names what is not supported.
  static absl::StatusOr<std::unique_ptr<Normalizer>> Create(const nlohmann::json& json);
};

}  // namespace plumbline
