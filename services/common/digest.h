// SHA-256 digests, always as 64 lower-case hexadecimal characters.
//
// DigestBuilder hashes a sequence of named fields unambiguously: every field is written as
// name, length and bytes, so {"ab","c"} and {"a","bc"} differ.
//
//   std::string key = DigestBuilder("cell/1").Add("plan", text).Add("seed", 7).Finish();
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace plumbline {

std::string Sha256Hex(absl::string_view bytes);

// Streams the file. NotFound when it does not exist, Unavailable on a read error.
absl::StatusOr<std::string> Sha256HexOfFile(const std::string& path);

class DigestBuilder {
 public:
  // `domain` names what is digested and its version; digests of different domains never collide.
  explicit DigestBuilder(absl::string_view domain);
  ~DigestBuilder();
  DigestBuilder& Add(absl::string_view name, absl::string_view bytes);
  DigestBuilder& Add(absl::string_view name, const char* bytes);
  DigestBuilder& Add(absl::string_view name, int64_t value);
  DigestBuilder& Add(absl::string_view name, int value) {
    return Add(name, static_cast<int64_t>(value));
  }
  DigestBuilder& Add(absl::string_view name, double value);  // by its bits
  std::string Finish();                                      // call once

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace plumbline
