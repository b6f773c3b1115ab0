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

}  // namespace plumbline
