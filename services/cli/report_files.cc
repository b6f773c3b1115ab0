#include "services/cli/report_files.h"

#include <google/protobuf/util/json_util.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "services/common/figures.h"
#include "services/common/files.h"
#include "services/common/status_macros.h"
#include "services/rpc/status.h"

namespace plumbline {
namespace {

constexpr char kBold[] = "\033[1m";
// Figures are printed on their own side of these (common/figures.h).
constexpr double kQuantizedEnough = 0.5, kLowPcr = 0.3, kHighPcr = 0.7;

std::string IntervalText(const v1::Interval& interval, absl::Span<const double> limits) {
  if (!interval.defined()) return "not defined";
  return PercentRangeText(interval.estimate(), interval.low(), interval.high(), limits);
}

// Who gave the verdicts, and how far people agree with it. A card's first agreement is the one over
// all answers and labels; reports show the others.
std::string JudgeText(const v1::JudgeCard& card) {
  const std::string judge = absl::StrCat("  judge: ", card.judge(), " ", card.version());
  if (card.agreements_size() == 0) {
    return absl::StrCat(judge, ", its agreement with people is not measured\n");
  }
  const v1::JudgeAgreement& agreement = card.agreements(0);
  return absl::StrFormat(
      "%s; agreement with %s on %s, as refuse, comply or degenerate: kappa %.2f [%.2f, %.2f] (0 is "
      "chance, 1 always)\n",
      judge, agreement.against(), CountText(agreement.answers(), "answer"), agreement.kappa(),
      agreement.kappa_low(), agreement.kappa_high());
}

// Refusals that are no trials.
std::string HarmlessText(const v1::Report& report) {
  const uint64_t harmless = report.baseline().harmless_refused_baseline();
  if (harmless == 0) return "";
  return absl::StrCat(" (", CountText(harmless, "more refusal"),
                      " of prompts that expect an answer left out)");
}

const char* DecisionWord(v1::Decision decision) {
  switch (decision) {
    case v1::DECISION_SHIP:
      return "SHIP";
    case v1::DECISION_DO_NOT_SHIP:
      return "DO NOT SHIP";
    case v1::DECISION_UNDECIDED:
      return "UNDECIDED";
    default:
      return "NO DECISION";
  }
}

// A custom study asks for counts, not for a verdict.
const char* HeadingWord(const v1::Report& report) {
  return report.study().has_custom() ? "MEASURED" : DecisionWord(report.headline().decision());
}

// What each plan of a custom study did to the answers.
std::string ConditionsText(const v1::Report& report) {
  std::string text;
  for (const v1::ConditionResult& condition : report.sweep()) {
    absl::StrAppend(&text, "  ", condition.name(), ": ", condition.flips(), " of ",
                    CountText(condition.baseline_refusals(), "refusal"), " turn into compliance, ",
                    IntervalText(condition.flip_rate(), {report.study().flip_limit()}), "; ",
                    condition.reverse_flips(), " of ",
                    CountText(condition.baseline_complies(), "compliance"), " into refusals; ",
                    CountText(condition.degenerate(), "refusal"), " degenerate, ",
                    condition.nonfinite(), " not finite; ", condition.equal_answers(), " of ",
                    CountText(condition.cells(), "answer"), " equal to the baseline's; ",
                    PercentText(condition.quantized_share(), {kQuantizedEnough}),
                    " of attended K and V quantized\n");
  }
  return text;
}

}  // namespace

absl::StatusOr<std::vector<std::string>> WriteFiles(const std::vector<NamedFile>& files,
                                                    const std::string& out) {
  const bool one = files.size() == 1 && !DirectoryExists(out) && !absl::EndsWith(out, "/");
  const std::string folder = one ? std::filesystem::path(out).parent_path().string() : out;
  if (!folder.empty() && !DirectoryExists(folder)) {
    PLUMB_RETURN_IF_ERROR(MakeDirectories(folder, 0700));
  }
  std::vector<std::string> paths;
  for (const NamedFile& file : files) {
    paths.push_back(one ? out : JoinPath(out, file.name));
    PLUMB_RETURN_IF_ERROR(WriteFileAtomically(paths.back(), file.bytes, 0600));
  }
  return paths;
}

absl::StatusOr<std::vector<NamedFile>> FetchReport(Session& session, const std::string& id,
                                                   v1::ReportFormat format, bool show_texts) {
  grpc::ClientContext context;
  session.experiments().Prepare(&context);
  v1::GetReportRequest request;
  request.set_id(id);
  request.set_format(format);
  request.set_show_texts(show_texts);
  auto stream = session.experiments().stub().GetReport(&context, request);
  std::vector<NamedFile> files;
  v1::GetReportResponse chunk;
  while (stream->Read(&chunk)) {
    if (!chunk.file_name().empty()) {
      // A name from the network becomes a file: the last component alone.
      files.push_back({std::filesystem::path(chunk.file_name()).filename().string(), ""});
    }
    if (files.empty()) return absl::InternalError("the report's first chunk has no file name");
    files.back().bytes += chunk.chunk();
  }
  PLUMB_RETURN_IF_ERROR(FromGrpcStatus(stream->Finish()));
  if (files.empty()) return absl::InternalError("the coordinator sent an empty report");
  return files;
}

std::string VerdictText(const v1::Report& report) {
  std::string text;
  const v1::Headline& headline = report.headline();
  const char* bold = kBold;
  absl::StrAppend(&text, "\n", bold, HeadingWord(report), "\033[0m  ", headline.sentence(), "\n");
  if (report.has_target()) {
    const v1::ConditionResult& target = report.target();
    absl::StrAppend(&text, "  flips under ", target.plan(), ": ", target.flips(), " of ",
                    CountText(target.baseline_refusals(), "refusal"), ", ",
                    IntervalText(target.flip_rate(), {report.study().flip_limit()}),
                    HarmlessText(report), "\n");
    if (target.floor_measured()) {
      const v1::ConditionResult& baseline = report.baseline();
      absl::StrAppend(
          &text, "  numeric noise alone flips ", absl::StrJoin(baseline.replica_flips(), " and "),
          " of ", CountText(baseline.floor_prompts(), "refusal"), ": the effect is ",
          target.above_floor() ? "above it" : "not distinguishable from it",
          "; under noise the target flips ", absl::StrJoin(target.replica_flips(), " and "), " of ",
          target.floor_prompts(), " (undisturbed ", target.floor_flips(), ")\n");
    }
  }
  if (report.study().has_custom()) absl::StrAppend(&text, ConditionsText(report));
  if (!report.mode_explanation().empty()) {
    absl::StrAppend(&text, "  why: ", report.mode_explanation(), "\n");
  }
  if (report.pcr_deployable().defined()) {
    absl::StrAppend(&text, "  PCR (deployable): ",
                    IntervalText(report.pcr_deployable().pcr(), {kLowPcr, kHighPcr}), "\n");
  }
  if (!headline.recommendation().empty()) {
    absl::StrAppend(&text, "  plan: ", headline.recommendation(), "\n");
  }
  if (report.has_judge_card()) absl::StrAppend(&text, JudgeText(report.judge_card()));
  for (const std::string& warning : report.warnings()) {
    absl::StrAppend(&text, "  warning: ", warning, "\n");
  }
  return text;
}

absl::Status WriteReportFolder(Session& session, const std::string& id, const std::string& folder) {
  if (!DirectoryExists(folder)) PLUMB_RETURN_IF_ERROR(MakeDirectories(folder, 0700));
  v1::Report report;
  std::string html_path;
  for (const v1::ReportFormat format : {v1::REPORT_FORMAT_JSON, v1::REPORT_FORMAT_HTML}) {
    PLUMB_ASSIGN_OR_RETURN(const std::vector<NamedFile> files,
                           FetchReport(session, id, format, /*show_texts=*/false));
    for (const NamedFile& file : files) {
      const std::string path = JoinPath(folder, file.name);
      PLUMB_RETURN_IF_ERROR(WriteFileAtomically(path, file.bytes, 0600));
      if (format == v1::REPORT_FORMAT_HTML) html_path = path;
    }
    if (format == v1::REPORT_FORMAT_JSON) {
      const auto parsed = google::protobuf::util::JsonStringToMessage(files.front().bytes, &report);
      if (!parsed.ok()) return absl::InternalError("the JSON report does not parse");
    }
  }
  std::string text = VerdictText(report);
  if (isatty(STDOUT_FILENO) == 0) {
    for (const std::string& escape : {std::string("\033[1m"), std::string("\033[0m")}) {
      for (size_t at = text.find(escape); at != std::string::npos; at = text.find(escape)) {
        text.erase(at, escape.size());
      }
    }
  }
  printf("%s  report: %s\n  texts and tables: plumb report %s %s --help\n", text.c_str(),
         html_path.c_str(), id.c_str(), session.reach().c_str());
  return absl::OkStatus();
}

}  // namespace plumbline
