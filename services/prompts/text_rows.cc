#include "absl/strings/ascii.h"
#include "services/common/status_macros.h"
#include "services/prompts/prompt_builder.h"

namespace plumbline::prompts_internal {

absl::Status AddTextRows(absl::string_view bytes, PromptBuilder* builder, LoadReport* report) {
  report->format = "txt";
  int64_t line_number = 0;
  while (!bytes.empty()) {
    const size_t end = bytes.find('\n');
    absl::string_view line = bytes.substr(0, end);
    bytes.remove_prefix(end == absl::string_view::npos ? bytes.size() : end + 1);
    ++line_number;
    line = absl::StripAsciiWhitespace(line);
    if (line.empty()) {
      ++report->blank_lines;
    } else if (line[0] == '#') {
      ++report->comment_lines;
    } else {
      RawRow row;
      row.location = {line_number, 1};
      row.turns = {{"user", std::string(line)}};
      PLUMB_RETURN_IF_ERROR(builder->Add(std::move(row)));
    }
  }
  return absl::OkStatus();
}

}  // namespace plumbline::prompts_internal
