#include "services/cli/flag_checks.h"

#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace plumbline {

CLI::Validator FlipRateCheck() {
  const auto check = [](const std::string& text) -> std::string {
    double rate = 0;
    if (absl::SimpleAtod(text, &rate) && rate > 0 && rate < 1) return "";
    return absl::StrCat("must be above 0 and below 1, got ", text);
  };
  return CLI::Validator(check, "in (0, 1)");
}

absl::Status CheckSampling(double temperature, double top_p) {
  if (top_p == 0 || temperature > 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--top-p ", top_p,
                   " does nothing without --temperature, for at temperature 0 "
                   "the likeliest token is taken: give --temperature too, or leave --top-p out"));
}

}  // namespace plumbline
