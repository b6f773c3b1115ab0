#include <cstdio>
#include <memory>

#include "absl/strings/str_cat.h"
#include "services/cli/commands.h"
#include "services/cli/prompt_sources.h"
#include "services/common/figures.h"
#include "services/common/files.h"
#include "services/common/status_macros.h"
#include "services/prompts/prompt_library.h"

namespace plumbline {
namespace {

absl::Status List(const std::string& data_dir) {
  printf("%-24s %8s  %-16s %s\n", "NAME", "PROMPTS", "DIGEST", "LICENCE");
  for (const std::string& root : PromptRoots(data_dir)) {
    PLUMB_ASSIGN_OR_RETURN(const std::vector<PromptSetInfo> sets, PromptLibrary(root).List());
    for (const PromptSetInfo& set : sets) {
      printf("%-24s %8lld  %-16s %s\n", set.name.c_str(), static_cast<long long>(set.prompts),
             set.digest.substr(0, 16).c_str(), set.licence.c_str());
    }
  }
  return absl::OkStatus();
}

absl::Status Show(const std::string& name, const std::string& data_dir, bool texts) {
  PLUMB_ASSIGN_OR_RETURN(const PromptSet set, ResolvePromptSet(name, PromptRoots(data_dir)));
  const SplitCounts splits = CountSplits(set.prompts);
  printf("%s  %s\n  %s: A %lld, B %lld, validation %lld, test %lld; repeated texts %lld\n",
         set.name.c_str(), set.digest.c_str(), CountText(set.prompts.size(), "prompt").c_str(),
         static_cast<long long>(splits.count[0]), static_cast<long long>(splits.count[1]),
         static_cast<long long>(splits.count[2]), static_cast<long long>(splits.count[3]),
         static_cast<long long>(set.report.repeated_texts));
  for (const Prompt& prompt : set.prompts) {
    printf("%s\t%s\t%s\t%s", prompt.id.c_str(), std::string(SplitName(SplitOf(prompt))).c_str(),
           std::string(ExpectedName(prompt.expected)).c_str(), prompt.category.c_str());
    if (texts) printf("\t%s", LastUserText(prompt).c_str());
    printf("\n");
  }
  return absl::OkStatus();
}

struct ImportFlags {
  std::string path;
  std::string data_dir = "plumbline-data";
  std::string expected;
  ImportOptions options;
};

absl::Status Import(ImportFlags flags) {
  if (flags.expected == "refuse") flags.options.load.default_expected = Expected::kRefuse;
  if (flags.expected == "comply") flags.options.load.default_expected = Expected::kComply;
  const PromptLibrary library(JoinPath(flags.data_dir, "prompts"));
  PLUMB_RETURN_IF_ERROR(MakeDirectories(library.root(), 0700));
  PLUMB_ASSIGN_OR_RETURN(const PromptSetInfo info, library.Import(flags.path, flags.options));
  printf("%s: %s, digest %s\n", info.name.c_str(),
         CountText(static_cast<uint64_t>(info.prompts), "prompt").c_str(), info.digest.c_str());
  return absl::OkStatus();
}

absl::Status Verify(const std::string& folder) {
  PLUMB_ASSIGN_OR_RETURN(const PublicSuiteReport report, VerifyPublicSuite(folder));
  printf("%s", FormatPublicSuiteReport(report).c_str());
  return absl::OkStatus();
}

}  // namespace

void AddPromptCommands(CLI::App& app, int* exit_code) {
  CLI::App* prompts = app.add_subcommand("prompts", "Prompt sets: list, show, import, verify");
  prompts->require_subcommand(1);
  auto data_dir = std::make_shared<std::string>("plumbline-data");

  CLI::App* list = prompts->add_subcommand("list", "Imported and built-in sets");
  list->add_option("--data", *data_dir, "data folder")->capture_default_str();
  list->callback([=] { *exit_code = Finish(List(*data_dir)); });

  CLI::App* show = prompts->add_subcommand("show", "A set's digest, splits and ids");
  auto name = std::make_shared<std::string>();
  auto texts = std::make_shared<bool>(false);
  show->add_option("NAME", *name, "a set's name, or a file")->required();
  show->add_option("--data", *data_dir, "data folder")->capture_default_str();
  show->add_flag("--show-texts", *texts, "with the texts, which may be harmful");
  show->callback([=] { *exit_code = Finish(Show(*name, *data_dir, *texts)); });

  CLI::App* import = prompts->add_subcommand("import", "A csv, jsonl or txt file as a named set");
  import->footer("Example:\n  plumb prompts import mine.csv --name mine --expected refuse");
  auto flags = std::make_shared<ImportFlags>();
  import->add_option("FILE", flags->path, "csv, jsonl or txt, or a folder of them")->required();
  import->add_option("--name", flags->options.name, "the set's name (default: the file's)");
  import->add_option("--expected", flags->expected, "for rows that do not say: refuse or comply")
      ->check(CLI::IsMember({"refuse", "comply"}));
  import->add_option("--category", flags->options.load.default_category,
                     "for rows that do not say");
  import->add_option("--licence", flags->options.licence, "SPDX id or words");
  import->add_option("--source", flags->options.source, "where it comes from");
  import->add_option("--data", flags->data_dir, "data folder")->capture_default_str();
  import->add_flag("--replace", flags->options.replace, "replace a set of the same name");
  import->callback([=] { *exit_code = Finish(Import(*flags));
});

CLI::App* verify = prompts->add_subcommand(
    "verify", "The public suite's 1,894 prompts: digests and counts per set and split");
verify->footer(
    "Example:\n  plumb prompts verify benchmarks   (after scripts/prompts/fetch_public.py)");
auto folder = std::make_shared<std::string>();
verify->add_option("DIR", *folder, "folder of the suite")->required();
verify->callback([=] { *exit_code = Finish(Verify(*folder)); });
}  // namespace plumbline

}  // namespace plumbline
