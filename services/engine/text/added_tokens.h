// Added tokens: strings that are cut out of a text before anything else sees it.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"

namespace plumbline {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool special = false;
  bool single_word = false;  // only between non-word characters
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space after it
  bool normalized = false;   // looked for after normalization
};

struct TextRange {
  size_t begin = 0, end = 0;  // bytes, [begin, end)
};

// A piece of text between added tokens, or one added token (`id` >= 0).
struct Segment {
  TextRange range;
  int32_t id = -1;
};

class AddedTokenMatcher {
 public:
  // `contents[i]` is what token i is looked for as; empty contents are skipped.
  void Add(AddedToken token, absl::string_view pattern);

  // Cuts `text` at the leftmost longest matches. Special tokens that touch a range of `plain`
  // (sorted, disjoint) stay text. Empty text gives no segment.
  std::vector<Segment> Cut(absl::string_view text, const std::vector<TextRange>& plain) const;

 private:
  struct Hit {
    size_t length = 0;
    int token = -1;        // -1: no match here
    bool skipped = false;  // a special token inside plain text
  };
  Hit At(absl::string_view text, size_t at, const std::vector<TextRange>& plain) const;

  std::vector<AddedToken> tokens_;
  absl::flat_hash_map<uint64_t, int32_t> edges_;  // node << 8 | byte -> node
  std::vector<int32_t> token_of_node_ = {-1};     // node 0 is the root
  std::array<bool, 256> first_byte_{};
};

}  // namespace plumbline
