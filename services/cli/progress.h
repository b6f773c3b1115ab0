// A study's progress for people: one line that is redrawn on a terminal, a line a stage elsewhere.
#pragma once

#include <string>

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

class ProgressPrinter {
 public:
  // To standard error; `terminal`: redraw in place.
  explicit ProgressPrinter(bool terminal) : terminal_(terminal) {}
  ~ProgressPrinter() { Finish(); }
  void Show(const v1::Experiment& experiment);
  void Finish();  // ends the redrawn line

 private:
  const bool terminal_;
  bool open_line_ = false;
  std::string last_stage_, last_message_;
  absl::Time last_plain_ = absl::InfinitePast();
};

}  // namespace plumbline
