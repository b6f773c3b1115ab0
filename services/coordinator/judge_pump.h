// Has stored answers judged: takes those without a verdict, asks the judge service in batches,
// stores the verdicts. While the judge is away it waits with growing pauses, and says so to whoever
// asks.
#pragma once

#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/common/clock.h"
#include "services/coordinator/change_signal.h"
#include "services/coordinator/judge_client.h"
#include "services/rpc/metrics.h"
#include "services/store/store.h"

namespace plumbline {

struct JudgePumpOptions {
  int batch = 256;             // answers a stream
  bool verdicts_only = false;  // drop an answer's text once it is judged
  absl::Duration first_backoff = absl::Milliseconds(500);
  absl::Duration longest_backoff = absl::Seconds(5);
};

// Step is called by one thread; health may be read by any.
class JudgePump {
 public:
  JudgePump(JudgePumpOptions options, Store* store, JudgeClient* judge, Clock* clock,
            ChangeSignal* changed)
      : options_(options), store_(store), judge_(judge), clock_(clock), changed_(changed) {}

  // Judges one batch for each judge in use. The number of new verdicts; 0 also while it backs off.
  absl::StatusOr<int> Step();

  // OK, Unavailable (it waits) or another error of the judge (studies that need it fail).
  absl::Status health() const;

 private:
  absl::StatusOr<int> JudgeBatch(const std::string& judge, const std::string& version);
  absl::Status AskJudge(const std::string& judge, const std::string& version,
                        const std::vector<UnjudgedCell>& cells, std::vector<NewVerdict>* verdicts);
  void SetHealth(const absl::Status& status);

  const JudgePumpOptions options_;
  Store* const store_;
  JudgeClient* const judge_;
  Clock* const clock_;
  ChangeSignal* const changed_;
  absl::Time not_before_ = absl::InfinitePast();
  absl::Duration backoff_ = absl::ZeroDuration();
  mutable std::mutex mutex_;
  absl::Status health_;  // guarded by mutex_
};

}  // namespace plumbline
