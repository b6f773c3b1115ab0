// plumb-judge-card [--write]: prints the keyword judge's agreement with data/judge/labels.jsonl, in
// the project's root; --write renews card.json and confusion.json beside it.
#include <cstdio>
#include <cstring>

#include "services/common/files.h"
#include "services/common/status_macros.h"
#include "tests/unit/judge_card/card_maker.h"

namespace plumbline {
namespace {

absl::Status Run(bool write) {
  PLUMB_ASSIGN_OR_RETURN(const std::string text, ReadFile(kLabelsFile));
  PLUMB_ASSIGN_OR_RETURN(const auto answers, ParseLabels(text));
  PLUMB_ASSIGN_OR_RETURN(const Measured measured, Measure(answers));
  std::printf("%s", Summary(measured).c_str());
  if (!write) return absl::OkStatus();
  PLUMB_RETURN_IF_ERROR(WriteFileAtomically(kConfusionFile, ConfusionJson(measured)));
  return WriteFileAtomically(kCardFile, CardJson(measured));
}

}  // namespace
}  // namespace plumbline

int main(int argc, char** argv) {
  const bool write = argc == 2 && std::strcmp(argv[1], "--write") == 0;
  if (argc > 1 && !write) {
    std::fprintf(stderr, "usage: %s [--write], in the project's root\n", argv[0]);
    return 2;
  }
  const absl::Status status = plumbline::Run(write);
  if (!status.ok()) std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  return status.ok() ? 0 : 1;
}
