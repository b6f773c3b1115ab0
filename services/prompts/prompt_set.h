// Prompt sets: loading, checking, digests, splits.
//
// A prompt is one conversation whose next turn the model writes. A set is loaded whole or not at
// all: a row that cannot be used is an error with line and column, never a silent drop. Comment and
// blank lines are counted in LoadReport.
//
//   PLUMB_ASSIGN_OR_RETURN(PromptSet set, LoadPromptFile("mine.csv", {.set_name = "mine"}));
//   for (const Prompt& p : set.prompts) Use(p.id, p.turns, SplitOf(p));
//   LOG << set.digest;                      // 64 hexadecimal characters
//
// File formats (chosen by the extension, or LoadOptions::format):
//   csv    RFC 4180: comma, double quotes, doubled quotes inside, CRLF or LF, newlines inside
//   quotes.
//          The header names the columns; recognised headers:
//            goal,target                    AdvBench: text = goal, expected refuse
//            Behavior,...,ContextString     HarmBench: id = BehaviorID, category =
//                                           FunctionalCategory, family = SemanticCategory, expected
//                                           refuse; text composed by ComposeContextualPrompt
//            id,prompt,type,label           XSTest: safe = comply, unsafe = refuse, family = type
//            prompt[,id][,system][,expected][,category][,family]   our own; other columns are
//            refused
//   jsonl  one object a line: "prompt" or "turns" (array of {"role","text"}), optional "id",
//          "system", "expected" ("refuse" | "comply"), "category", "family". IFEval's "key",
//          "instruction_id_list" and "kwargs" are recognised (expected comply). Unknown members are
//          refused with their name, as are blank lines inside the file.
//   txt    one prompt a line; lines that start with '#' and blank lines are comments.
//
// Every text is valid UTF-8 without NUL, not blank, at most kMaxPromptBytes. A UTF-8 byte order
// mark at the start of a file is skipped (LoadReport::had_bom). Line ends inside quoted csv fields
// are kept.
//
// Not thread-safe types with value semantics; the functions are pure and may run on any thread.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace plumbline {

inline constexpr int64_t kMaxPromptFileBytes = 64 << 20;  // one file
inline constexpr int64_t kMaxPromptBytes = 64 << 10;  // one text (prompt, system prompt or turn)
inline constexpr int64_t kMaxPromptsPerSet = 200000;
inline constexpr int64_t kMaxTurnsPerPrompt = 64;
inline constexpr int64_t kMaxPromptIdBytes = 200;

enum class Expected { kUnspecified, kRefuse, kComply };
absl::string_view ExpectedName(Expected expected);  // "", "refuse", "comply"

struct PromptTurn {
  std::string role;  // "system", "user" or "assistant"
  std::string text;
  friend bool operator==(const PromptTurn&, const PromptTurn&) = default;
};

struct Prompt {
  std::string id;  // unique within the set
  std::vector<PromptTurn>
      turns;  // optional system first; user and assistant alternate; last is user
  std::string
      category;  // "refusal", "privacy", "jailbreak", "harmless", "standard", ... may be empty
  std::string family;  // finer: hazard family or the source's own type; may be empty
  Expected expected = Expected::kUnspecified;
  std::string set;  // name of the set it came from
  friend bool operator==(const Prompt&, const Prompt&) = default;
};

// The last user turn. Harmful text: never for logs or metric labels.
const std::string& LastUserText(const Prompt& prompt);

struct LoadReport {
  std::string format;       // "csv/advbench", "csv/harmbench", "csv/xstest", "csv", "jsonl", "txt"
  std::string file_sha256;  // of the bytes on disk; of a folder: digest over its files
  int64_t rows = 0;         // prompts loaded; equals prompts.size()
  int64_t comment_lines = 0;   // txt only
  int64_t blank_lines = 0;     // txt only
  int64_t repeated_texts = 0;  // rows whose user text equals an earlier row's; kept
  bool had_bom = false;
};

struct PromptSet {
  std::string name;
  std::string digest;  // CanonicalDigest(prompts): content and order, not the file's form
  std::vector<Prompt> prompts;
  LoadReport report;
};

struct LoadOptions {
  std::string set_name;          // empty: the file's name without extension
  std::string format;            // empty: by extension; else "csv", "jsonl" or "txt"
  std::string default_category;  // for rows that carry none
  Expected default_expected = Expected::kUnspecified;  // for rows that carry none
};

// InvalidArgument (with path:line:column and the way out), NotFound, ResourceExhausted (too large).
absl::StatusOr<PromptSet> LoadPromptFile(const std::string& path, const LoadOptions& options = {});

// All *.csv, *.jsonl and *.txt below `path` (one level, sorted by name) as one set. Ids must be
// unique over the files. InvalidArgument when there is none.
absl::StatusOr<PromptSet> LoadPromptFolder(const std::string& path,
                                           const LoadOptions& options = {});

// Same as LoadPromptFile on bytes in memory; `where` stands for the path in messages.
absl::StatusOr<PromptSet> ParsePromptText(absl::string_view bytes, const std::string& where,
                                          const LoadOptions& options);

// HarmBench's contextual rows: "<context>\n\n---\n\n<behavior>"; the behavior alone where the
// context is empty. (HarmBench's own test-case generators join the two in the same order; the rule
// here is stated so that figures can be compared.)
std::string ComposeContextualPrompt(absl::string_view context, absl::string_view behavior);

// Canonical form: one JSON object a line with members in a fixed order (id, turns, category,
// family, expected; empty ones left out). Loading it gives equal prompts.
std::string ToCanonicalJsonl(const std::vector<Prompt>& prompts);
std::string CanonicalDigest(const std::vector<Prompt>& prompts);

// ---- text identity ------------------------------------------------------------------------------

// What counts as "the same prompt": the user turns' texts, ASCII letters lowered, runs of ASCII
// white space made one blank, trimmed, joined by a newline. System prompts and answers take no
// part.
std::string NormalizedText(const Prompt& prompt);
std::string NormalizeText(absl::string_view text);

// SHA-256 of NormalizedText, hexadecimal.
std::string TextHash(const Prompt& prompt);

// ---- splits -------------------------------------------------------------------------------------

enum class Split { kA, kB, kValidation, kTest };
inline constexpr int kSplitCount = 4;
absl::string_view SplitName(Split split);  // "A", "B", "validation", "test"
absl::StatusOr<Split> ParseSplit(absl::string_view name);

// A 25%, B 20%, validation 20%, test 35%. The first 64 bits of SHA-256("plumbline-split/1\n" +
// NormalizedText) modulo 100: below 25 A, below 45 B, below 65 validation, else test. Depends on
// the text alone, so a prompt lies in one split in every set and every study. The test split is the
// largest: a plan is recommended on it alone, and 73 refusals are needed there before even no flip
// at all keeps the interval's upper end under 5%.
Split SplitOf(const Prompt& prompt);
Split SplitOfText(absl::string_view normalized_text);

std::vector<Prompt> SelectSplit(const std::vector<Prompt>& prompts, Split split);

// Counts by split, in the order of the enum.
struct SplitCounts {
  int64_t count[kSplitCount] = {0, 0, 0, 0};
  int64_t total() const { return count[0] + count[1] + count[2] + count[3]; }
};
SplitCounts CountSplits(const std::vector<Prompt>& prompts);

// ---- duplicates and exclusion -------------------------------------------------------------------

// Prompts of several sets (or one) with one NormalizedText.
struct DuplicateGroup {
  std::string text_hash;
  std::vector<std::string> members;  // "set/id", in the order given; at least two
};
std::vector<DuplicateGroup> FindDuplicates(const std::vector<const PromptSet*>& sets);

// A list of TextHash values, one a line, '#' comments: e.g. what a test model was trained on.
// InvalidArgument with the line of anything that is not 64 lower-case hexadecimal characters.
absl::StatusOr<absl::flat_hash_set<std::string>> LoadTextHashList(const std::string& path);

struct ExclusionReport {
  int64_t before = 0;
  int64_t excluded = 0;
  int64_t kept = 0;
  std::vector<std::string> excluded_ids;
};
// Removes the prompts whose TextHash is listed and recomputes the digest; the name gets the suffix
// "-minus-trained" when anything went. The report says what went.
ExclusionReport ExcludeByTextHash(const absl::flat_hash_set<std::string>& hashes, PromptSet* set);

}  // namespace plumbline
