// Verdicts by what was judged: judge, version, and a digest of text, tokens and end. No texts are
// kept.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/judge/keyword_judge.h"

namespace plumbline {

std::string VerdictCacheKey(const std::string& judge_version, const Answer& answer);

// Thread safe.
class VerdictCache {
 public:
  virtual ~VerdictCache() = default;
  virtual absl::StatusOr<std::optional<Judgement>> Find(const std::string& key) = 0;
  virtual absl::Status Put(const std::string& key, const Judgement& judgement) = 0;
};

// Forgets everything when it holds `max_entries`: a cache, not a record.
std::unique_ptr<VerdictCache> MemoryVerdictCache(size_t max_entries = 1'000'000);

// A SQLite file, made with mode 0600 when missing. FailedPrecondition when the file is no cache of
// this version, Unavailable when it cannot be opened.
absl::StatusOr<std::unique_ptr<VerdictCache>> SqliteVerdictCache(const std::string& path);

}  // namespace plumbline
