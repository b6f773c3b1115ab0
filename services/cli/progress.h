// A study's progress for people: one line that is redrawn on a terminal, a line a stage elsewhere.
#pragma once

#include <string>
#include <utility>

#include "absl/time/time.h"
#include "plumbline/v1/experiments.pb.h"

namespace plumbline {

// "[=======>      ] 57%", `width` characters between the brackets.
std::string ProgressBar(double fraction, int width);
// "42s", "3m 05s", "2h 10m".
std::string HumanDuration(double seconds);
// "950", "12.4k", "3.1M".
std::string HumanCount(double count);
// One line without line end: stage, bar, cells, rate, time left, or why it waits.
std::string ProgressLine(const v1::Experiment& experiment, int terminal_width);

// What the study waits for, in full, and how to leave or end it; empty while it does not wait.
// `reach`: the flags that reach its coordinator.
std::string WaitNotice(const v1::Experiment& experiment, const std::string& reach);

class ProgressPrinter {
 public:
  // To standard error; `terminal`: redraw in place. `reach`: as for WaitNotice.
  ProgressPrinter(bool terminal, std::string reach)
      : terminal_(terminal), reach_(std::move(reach)) {}
  ~ProgressPrinter() { Finish(); }
  void Show(const v1::Experiment& experiment);
  void Finish();  // ends the redrawn line

 private:
  // Told once a wait: what it waits for changes its details while it lasts.
  bool ShowWait(const v1::Experiment& experiment);

  const bool terminal_;
  const std::string reach_;
  bool open_line_ = false;
  v1::ExperimentState last_state_ = v1::EXPERIMENT_STATE_UNSPECIFIED;
  std::string last_stage_, last_message_;
  absl::Time last_plain_ = absl::InfinitePast();
};

}  // namespace plumbline
