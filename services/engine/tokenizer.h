// Byte-level BPE tokenizer from a Hugging Face tokenizer.json; ids equal to the `tokenizers`
// library. No torch, gRPC or protobuf. Immutable after Create, so safe from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace plumbline {

// Whether text such as "<|im_end|>" inside a user's words becomes the special token (kParse) or
// stays ordinary text (kText, the default: a prompt must not be able to end its own turn).
//
// As `tokenizers` has it, an added token that its file does not mark special is no special token:
// it is found in any text.
enum class SpecialTokens { kText, kParse };

// Bytes [begin, end) of a text.
struct ByteSpan {
  size_t begin = 0, end = 0;
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // InvalidArgument: not JSON, a model, normalizer or pre-tokenizer outside the supported set
  // (named), ids out of range, merges that do not resolve. Never crashes on hostile bytes (fuzzed).
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(absl::string_view tokenizer_json);

  // No BOS or EOS is added: the chat format does that. Text that is not UTF-8 is encoded with
  // U+FFFD in place of each broken sequence. Bytes absent from the vocabulary: see dropped_bytes.
  virtual std::vector<int32_t> Encode(absl::string_view text, SpecialTokens special) const = 0;

  // The same for a text that mixes trusted and untrusted parts: special tokens are found outside
  // `plain` (sorted, disjoint) and stay text where they touch it. `text` must be valid UTF-8; if it
  // is not, all of it counts as plain.
  virtual std::vector<int32_t> EncodeMixed(absl::string_view text,
                                           const std::vector<ByteSpan>& plain) const = 0;

  // Bytes of one token (empty for special tokens when skip_special, and for ids without a token).
  virtual std::string TokenBytes(int32_t id, bool skip_special) const = 0;
  // The text of ids; broken UTF-8 becomes U+FFFD as `tokenizers` does it.
  virtual std::string Decode(const std::vector<int32_t>& ids, bool skip_special) const = 0;

  virtual int vocab_size() const = 0;  // highest id + 1
  virtual bool is_special(int32_t id) const = 0;
  // Byte values that the vocabulary lacks, which Encode drops as Hugging Face does (the worker logs
  // their number once at load).
  virtual const std::vector<uint8_t>& dropped_bytes() const = 0;
};

// Turns a stream of tokens into text without ever emitting half a UTF-8 sequence. All pushed text
// and Finish() together equal Decode of the same ids.
class IncrementalDecoder {
 public:
  // The tokenizer must outlive the decoder.
  explicit IncrementalDecoder(const Tokenizer* tokenizer, bool skip_special = true)
      : tokenizer_(tokenizer), skip_special_(skip_special) {}
  std::string Push(int32_t id);  // the text that became complete, possibly empty
  std::string Finish();          // what is left, broken bytes as U+FFFD

 private:
  const Tokenizer* tokenizer_;
  bool skip_special_;
  std::string pending_;  // the start of a character that later tokens may complete
};

}  // namespace plumbline
