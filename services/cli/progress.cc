#include "services/cli/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "services/common/figures.h"

namespace plumbline {
namespace {

constexpr absl::Duration kPlainPeriod = absl::Seconds(15);
constexpr int kPlainWidth = 400;

int TerminalWidth() {
  winsize size{};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 20) return size.ws_col;
  return 100;
}

const v1::StageProgress* CurrentStage(const v1::Experiment& experiment) {
  for (const v1::StageProgress& stage : experiment.stages()) {
    if (stage.stage() == experiment.stage()) return &stage;
  }
  return nullptr;
}

}  // namespace

std::string ProgressBar(double fraction, int width) {
  const double clamped = std::clamp(fraction, 0.0, 1.0);
  const int filled = static_cast<int>(clamped * width);
  std::string bar(static_cast<size_t>(filled), '=');
  if (filled < width) bar += clamped > 0 ? '>' : ' ';
  bar.resize(static_cast<size_t>(width), ' ');
  return absl::StrFormat("[%s] %3d%%", bar, static_cast<int>(clamped * 100));
}

std::string HumanDuration(double seconds) {
  const auto total = static_cast<int64_t>(seconds + 0.5);
  if (total < 60) return absl::StrFormat("%ds", total);
  if (total < 3600) return absl::StrFormat("%dm %02ds", total / 60, total % 60);
  return absl::StrFormat("%dh %02dm", total / 3600, total % 3600 / 60);
}

std::string HumanCount(double count) {
  if (count < 1000) return absl::StrFormat("%.0f", count);
  if (count < 1e6) return absl::StrFormat("%.1fk", count / 1e3);
  return absl::StrFormat("%.1fM", count / 1e6);
}

std::string ProgressLine(const v1::Experiment& experiment, int terminal_width) {
  size_t index = 0;
  for (const v1::StageProgress& stage : experiment.stages()) index += stage.finished() ? 1 : 0;
  std::string line =
      absl::StrFormat("%d/%d %-14s", std::min<int>(index + 1, experiment.stages_size()),
                      experiment.stages_size(), experiment.stage());
  const v1::StageProgress* stage = CurrentStage(experiment);
  if (stage != nullptr && stage->cells_total() > 0) {
    const double done = static_cast<double>(stage->cells_done());
    const double total = static_cast<double>(stage->cells_total());
    absl::StrAppend(
        &line, " ", ProgressBar(done / total, 24),
        absl::StrFormat(" %d/%s", stage->cells_done(), CountText(stage->cells_total(), "cell")));
    if (experiment.cells_per_second() > 0) {
      absl::StrAppend(&line, absl::StrFormat(", %.1f/s", experiment.cells_per_second()),
                      ", stage ends in ", HumanDuration(experiment.eta_seconds()));
    } else if (experiment.state() == v1::EXPERIMENT_STATE_RUNNING && done < total) {
      absl::StrAppend(&line, ", ...");
    }
  }
  if (!experiment.message().empty()) absl::StrAppend(&line, "  ", experiment.message());
  if (line.size() > static_cast<size_t>(terminal_width)) {
    line.resize(static_cast<size_t>(terminal_width));
  }
  return line;
}

std::string WaitNotice(const v1::Experiment& experiment, const std::string& reach) {
  const bool waits = experiment.state() == v1::EXPERIMENT_STATE_PENDING ||
                     experiment.state() == v1::EXPERIMENT_STATE_WAITING;
  if (!waits || experiment.message().empty()) return "";
  return absl::StrCat(experiment.message(),
                      "\n  Ctrl-C leaves it; it stays. To see it again: plumb watch ",
                      experiment.id(), " ", reach, "\n  To end it: plumb cancel ", experiment.id(),
                      " ", reach, "\n");
}

bool ProgressPrinter::ShowWait(const v1::Experiment& experiment) {
  // A study that has not started may wait for something else with each worker that comes.
  const bool news =
      experiment.state() != last_state_ ||
      (experiment.state() == v1::EXPERIMENT_STATE_PENDING && experiment.message() != last_message_);
  const std::string notice = news ? WaitNotice(experiment, reach_) : "";
  if (notice.empty()) return false;
  if (open_line_) fprintf(stderr, "\r\033[K");
  open_line_ = false;
  fprintf(stderr, "%s", notice.c_str());
  return true;
}

void ProgressPrinter::Show(const v1::Experiment& experiment) {
  const bool told = ShowWait(experiment);
  const absl::Time now = absl::Now();
  const bool news = experiment.stage() != last_stage_ || experiment.message() != last_message_;
  const bool due = news || now - last_plain_ >= kPlainPeriod;
  last_state_ = experiment.state();
  last_stage_ = experiment.stage();
  last_message_ = experiment.message();
  if (terminal_) {
    fprintf(stderr, "\r\033[K%s", ProgressLine(experiment, TerminalWidth() - 1).c_str());
    fflush(stderr);
    open_line_ = true;
    return;
  }
  if (!due) return;
  last_plain_ = now;
  if (!told) fprintf(stderr, "%s\n", ProgressLine(experiment, kPlainWidth).c_str());
}

void ProgressPrinter::Finish() {
  if (open_line_) fprintf(stderr, "\n");
  open_line_ = false;
}

}  // namespace plumbline
