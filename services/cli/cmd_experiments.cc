#include <cstdio>
#include <filesystem>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "services/cli/commands.h"
#include "services/cli/progress.h"
#include "services/cli/report_files.h"
#include "services/cli/session.h"
#include "services/cli/study_flags.h"
#include "services/common/figures.h"
#include "services/common/files.h"
#include "services/common/status_macros.h"
#include "services/rpc/state_word.h"
#include "services/rpc/status.h"

namespace plumbline {
namespace {

const char* KindWord(const v1::Study& study) {
  switch (study.kind_case()) {
    case v1::Study::kSweep:
      return "sweep";
    case v1::Study::kDiagnose:
      return "diagnose";
    case v1::Study::kMitigate:
      return "mitigate";
    case v1::Study::kCanary:
      return "canary";
    case v1::Study::kCustom:
      return "custom";
    default:
      return "?";
  }
}

// A command on one experiment, named by its first argument.
struct OnExperiment {
  SessionFlags session;
  std::string id;
};

std::shared_ptr<OnExperiment> RegisterOnExperiment(CLI::App* command) {
  auto flags = std::make_shared<OnExperiment>();
  flags->session.Register(command);
  command->add_option("ID", flags->id, "the experiment (`plumb list`)")->required();
  return flags;
}

absl::Status List(const SessionFlags& flags) {
  absl::StatusOr<std::unique_ptr<Session>> session = Session::Open(flags, Session::Need::kRead);
  if (!session.ok()) return session.status();
  v1::ListExperimentsRequest request;
  printf("%-20s %-9s %-10s %-18s %s\n", "ID", "KIND", "STATE", "STAGE", "MODEL / NAME");
  while (true) {
    const auto page =
        (*session)->experiments().Call(&v1::Experiments::Stub::ListExperiments, request);
    if (!page.ok()) return page.status();
    for (const v1::Experiment& experiment : page->experiments()) {
      // One that waits for its model has but what was asked for.
      const std::string& model = experiment.model().name().empty() ? experiment.study().model()
                                                                   : experiment.model().name();
      printf("%-20s %-9s %-10s %-18s %s %s\n", experiment.id().c_str(),
             KindWord(experiment.study()), ExperimentStateWord(experiment.state()),
             experiment.stage().c_str(), model.c_str(), experiment.study().name().c_str());
    }
    if (page->next_page_token().empty()) return absl::OkStatus();
    request.set_page_token(page->next_page_token());
  }
}

int Watch(const OnExperiment& flags, const std::string& out) {
  absl::StatusOr<std::unique_ptr<Session>> session =
      Session::Open(flags.session, Session::Need::kRun);
  if (!session.ok()) return Finish(session.status());
  return FollowExperiment(**session, flags.id, out);
}

absl::Status Cancel(const OnExperiment& flags) {
  absl::StatusOr<std::unique_ptr<Session>> session =
      Session::Open(flags.session, Session::Need::kRead);
  if (!session.ok()) return session.status();
  v1::CancelExperimentRequest request;
  request.set_id(flags.id);
  const auto response =
      (*session)->experiments().Call(&v1::Experiments::Stub::CancelExperiment, request);
  if (!response.ok()) return response.status();
  printf("%s %s\n", flags.id.c_str(), ExperimentStateWord(response->experiment().state()));
  return absl::OkStatus();
}

int Resume(const OnExperiment& flags, const std::string& out) {
  absl::StatusOr<std::unique_ptr<Session>> session =
      Session::Open(flags.session, Session::Need::kRun);
  if (!session.ok()) return Finish(session.status());
  v1::ResumeExperimentRequest request;
  request.set_id(flags.id);
  const auto response =
      (*session)->experiments().Call(&v1::Experiments::Stub::ResumeExperiment, request);
  if (!response.ok()) return Finish(response.status());
  return FollowExperiment(**session, flags.id, out);
}

// Report files that lie in the data folder may hold texts or token ids: each is written anew
// without.
absl::Status PurgeReports(Session& session, const std::string& id, bool everything) {
  const std::string folder = JoinPath(session.data_dir(), absl::StrCat("reports/", id));
  if (!DirectoryExists(folder)) return absl::OkStatus();
  if (everything) {
    std::error_code error;
    std::filesystem::remove_all(folder, error);
    if (error) {
      return absl::UnavailableError(
          absl::StrCat("the reports in ", folder, " could not be removed: ", error.message()));
    }
    printf("removed the reports in %s\n", folder.c_str());
    return absl::OkStatus();
  }
  uint64_t rewritten = 0;
  for (const v1::ReportFormat format :
       {v1::REPORT_FORMAT_HTML, v1::REPORT_FORMAT_JSON, v1::REPORT_FORMAT_CSV,
        v1::REPORT_FORMAT_LATEX, v1::REPORT_FORMAT_CANONICAL}) {
    const absl::StatusOr<std::vector<NamedFile>> files =
        FetchReport(session, id, format, /*show_texts=*/false);
    // A study that has measured nothing yet has no report to write anew.
    if (absl::IsFailedPrecondition(files.status())) return absl::OkStatus();
    if (!files.ok()) return files.status();
    for (const NamedFile& file : *files) {
      const std::string path = JoinPath(folder, file.name);
      if (!FileExists(path)) continue;
      PLUMB_RETURN_IF_ERROR(WriteFileAtomically(path, file.bytes, 0600));
      ++rewritten;
    }
  }
  printf("wrote %s in %s anew, without texts\n", CountText(rewritten, "report file").c_str(),
         folder.c_str());
  return absl::OkStatus();
}

absl::Status Purge(const OnExperiment& flags, bool everything) {
  absl::StatusOr<std::unique_ptr<Session>> session =
      Session::Open(flags.session, Session::Need::kPurge);
  if (!session.ok()) return session.status();
  v1::PurgeExperimentRequest request;
  request.set_id(flags.id);
  request.set_everything(everything);
  const auto response =
      (*session)->experiments().Call(&v1::Experiments::Stub::PurgeExperiment, request);
  if (!response.ok()) return response.status();
  printf("removed %s and %s; what another study shares stays\n",
         CountText(response->texts_removed(), "text").c_str(),
         CountText(response->cells_removed(), "cell").c_str());
  return PurgeReports(**session, flags.id, everything);
}

}  // namespace

void AddExperimentCommands(CLI::App& app, int* exit_code) {
  CLI::App* list = app.add_subcommand("list", "Experiments, newest first");
  auto list_flags = std::make_shared<SessionFlags>();
  list_flags->Register(list);
  list->callback([=] { *exit_code = Finish(List(*list_flags)); });

  CLI::App* watch = app.add_subcommand(
      "watch", "Follow an experiment to its end; without a coordinator, go on with it");
  auto watch_flags = RegisterOnExperiment(watch);
  auto watch_out = std::make_shared<std::string>();
  watch_flags->session.RegisterWorkerFlags(watch);
  watch->add_option("--out", *watch_out, "folder for the report");
  watch->callback([=] { *exit_code = Watch(*watch_flags, *watch_out); });

  CLI::App* cancel = app.add_subcommand("cancel", "Stop handing out an experiment's cells");
  auto cancel_flags = RegisterOnExperiment(cancel);
  cancel->callback([=] { *exit_code = Finish(Cancel(*cancel_flags)); });

  CLI::App* resume = app.add_subcommand("resume", "Go on with a cancelled or failed experiment");
  auto resume_flags = RegisterOnExperiment(resume);
  auto resume_out = std::make_shared<std::string>();
  resume_flags->session.RegisterWorkerFlags(resume);
  resume->add_option("--out", *resume_out, "folder for the report");
  resume->callback([=] { *exit_code = Resume(*resume_flags, *resume_out); });

  CLI::App* purge = app.add_subcommand(
      "purge", "Delete an experiment's texts (or all of it), except what another one shares");
  purge->footer(
      "Goes: prompts, system prompt and utility text, answers (texts, token ids, first-token\n"
      "probabilities, digests of them), captured keys and values, and texts in DATA/reports/ID.\n"
      "Stays: verdicts with the judge's rule that fired, counts and conclusions, prompt ids, "
      "hashes\n"
      "of prompts and prompt sets, cell keys, the judge's cache (digest to verdict), and whatever\n"
      "another study that is not purged shares. Files that you wrote elsewhere (--out) are yours "
      "to\n"
      "delete. A later study computes purged answers anew.");
  auto purge_flags = RegisterOnExperiment(purge);
  auto everything = std::make_shared<bool>(false);
  purge->add_flag("--everything", *everything, "the experiment and its results too");
  purge->callback([=] { *exit_code = Finish(Purge(*purge_flags, *everything)); });
}

}  // namespace plumbline
