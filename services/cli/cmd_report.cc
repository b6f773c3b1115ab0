#include <google/protobuf/util/json_util.h>

#include <cstdio>
#include <map>
#include <memory>

#include "absl/strings/str_cat.h"
#include "services/cli/commands.h"
#include "services/cli/flag_checks.h"
#include "services/cli/report_files.h"
#include "services/cli/session.h"
#include "services/common/files.h"
#include "services/common/status_macros.h"
#include "services/rpc/status.h"

namespace plumbline {
namespace {

struct ReportFlags {
  SessionFlags session;
  std::string id, format, out;  // format: empty = html
  bool show_texts = false, canonical = false;
};

absl::Status Report(const ReportFlags& flags) {
  static const auto* const kFormats =
      new std::map<std::string, v1::ReportFormat>{{"html", v1::REPORT_FORMAT_HTML},
                                                  {"json", v1::REPORT_FORMAT_JSON},
                                                  {"csv", v1::REPORT_FORMAT_CSV},
                                                  {"latex", v1::REPORT_FORMAT_LATEX}};
  if (flags.canonical && !flags.format.empty() && flags.format != "json") {
    return absl::InvalidArgumentError(
        absl::StrCat("--canonical is JSON of its own and has no --format ", flags.format,
                     ": leave one of them out"));
  }
  PLUMB_ASSIGN_OR_RETURN(const std::unique_ptr<Session> session,
                         Session::Open(flags.session, Session::Need::kRead));
  const v1::ReportFormat format = flags.canonical        ? v1::REPORT_FORMAT_CANONICAL
                                  : flags.format.empty() ? v1::REPORT_FORMAT_HTML
                                                         : kFormats->at(flags.format);
  PLUMB_ASSIGN_OR_RETURN(const std::vector<NamedFile> files,
                         FetchReport(*session, flags.id, format, flags.show_texts));
  if (flags.out == "-") {
    for (const NamedFile& file : files) fwrite(file.bytes.data(), 1, file.bytes.size(), stdout);
    return absl::OkStatus();
  }
  const std::string out =
      flags.out.empty() ? JoinPath(flags.session.data_dir, absl::StrCat("reports/", flags.id, "/"))
                        : flags.out;
  PLUMB_ASSIGN_OR_RETURN(const std::vector<std::string> paths, WriteFiles(files, out));
  for (const std::string& path : paths) printf("%s\n", path.c_str());
  return absl::OkStatus();
}

struct ResultsFlags {
  SessionFlags session;
  std::string id;
  bool texts = false;
};

// One JSON object a line, as `plumb generate` prints them.
absl::Status Results(const ResultsFlags& flags) {
  PLUMB_ASSIGN_OR_RETURN(const std::unique_ptr<Session> session,
                         Session::Open(flags.session, Session::Need::kRead));
  grpc::ClientContext context;
  session->experiments().Prepare(&context);
  v1::ListResultsRequest request;
  request.set_id(flags.id);
  request.set_include_texts(flags.texts);
  auto stream = session->experiments().stub().ListResults(&context, request);
  v1::ListResultsResponse row;
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  while (stream->Read(&row)) {
    std::string json;
    const auto printed = google::protobuf::util::MessageToJsonString(row, &json, options);
    if (!printed.ok()) return absl::InternalError("a result does not print as JSON");
    printf("%s\n", json.c_str());
    if (OutputBroken()) context.TryCancel();
  }
  const grpc::Status status = stream->Finish();
  return OutputBroken() ? absl::OkStatus() : FromGrpcStatus(status);
}

struct ExportFlags {
  SessionFlags session;
  std::string id, engine, plan;
};

absl::Status Export(const ExportFlags& flags) {
  static const auto* const kEngines = new std::map<std::string, v1::ServingEngine>{
      {"vllm", v1::SERVING_ENGINE_VLLM},
      {"llamacpp", v1::SERVING_ENGINE_LLAMACPP},
      {"transformers", v1::SERVING_ENGINE_TRANSFORMERS}};
  PLUMB_ASSIGN_OR_RETURN(const std::unique_ptr<Session> session,
                         Session::Open(flags.session, Session::Need::kRead));
  v1::ExportPlanRequest request;
  request.set_id(flags.id);
  request.set_engine(kEngines->at(flags.engine));
  request.set_plan_name(flags.plan);
  PLUMB_ASSIGN_OR_RETURN(const v1::ExportPlanResponse response,
                         session->experiments().Call(&v1::Experiments::Stub::ExportPlan, request));
  fprintf(stderr, "plan: %s\n", response.plan().c_str());
  for (const std::string& note : response.notes()) fprintf(stderr, "note: %s\n", note.c_str());
  printf("%s\n", response.settings().c_str());
  return absl::OkStatus();
}

struct GateFlags {
  SessionFlags session;
  std::string id, condition;
  double max_flip_rate = 0;  // the study's own
};

int CouldNotSay(const absl::Status& status) {
  Finish(status);
  return 2;
}

int Gate(const GateFlags& flags) {
  absl::StatusOr<std::unique_ptr<Session>> session =
      Session::Open(flags.session, Session::Need::kRead);
  if (!session.ok()) return CouldNotSay(session.status());
  v1::CheckGateRequest request;
  request.set_id(flags.id);
  request.set_max_flip_rate(flags.max_flip_rate);
  request.set_condition(flags.condition);
  const auto response = (*session)->experiments().Call(&v1::Experiments::Stub::CheckGate, request);
  if (!response.ok()) return CouldNotSay(response.status());
  printf("%s\n", response->explanation().c_str());
  switch (response->decision()) {
    case v1::GATE_DECISION_PASS:
      return 0;
    case v1::GATE_DECISION_FAIL:
      return 1;
    case v1::GATE_DECISION_UNDECIDED:
      return 3;
    default:
      return 2;
  }
}

void AddReport(CLI::App& app, int* exit_code) {
  auto flags = std::make_shared<ReportFlags>();
  CLI::App* command = app.add_subcommand("report", "Write an experiment's report");
  command->footer(
      "Examples:\n"
      "  plumb report ID                       HTML into DATA/reports/ID\n"
      "  plumb report ID --format csv --out tables/\n"
      "  plumb report ID --canonical --out a.json   two runs of one study give equal bytes");
  flags->session.Register(command);
  command->add_option("ID", flags->id, "the experiment")->required();
  command->add_option("--format", flags->format, "html (the default), json, csv or latex")
      ->check(CLI::IsMember({"html", "json", "csv", "latex"}));
  command->add_option("--out", flags->out,
                      "file or folder, made if need be; - for standard output");
  command->add_flag("--canonical", flags->canonical, "time- and worker-free JSON with every cell");
  command->add_flag("--show-texts", flags->show_texts,
                    "with prompts and answers, which may be harmful");
  command->callback([=] { *exit_code = Finish(Report(*flags)); });
}

void AddResults(CLI::App& app, int* exit_code) {
  auto flags = std::make_shared<ResultsFlags>();
  CLI::App* command =
      app.add_subcommand("results", "Every cell of an experiment, a JSON object a line");
  flags->session.Register(command);
  command->add_option("ID", flags->id, "the experiment")->required();
  command->add_flag("--show-texts", flags->texts, "with prompts and answers, which may be harmful");
  command->callback([=] { *exit_code = Finish(Results(*flags)); });
}

void AddExport(CLI::App& app, int* exit_code) {
  auto flags = std::make_shared<ExportFlags>();
  CLI::App* command =
      app.add_subcommand("export", "The recommended plan as a serving engine's own settings");
  command->footer(
      "Examples:\n"
      "  plumb export ID --engine vllm                 the recommended plan\n"
      "  plumb export ID --engine vllm --plan target   of a study that ends with SHIP");
  flags->session.Register(command);
  command->add_option("ID", flags->id, "the experiment")->required();
  command->add_option("--engine", flags->engine, "vllm, llamacpp or transformers")
      ->required()
      ->check(CLI::IsMember({"vllm", "llamacpp", "transformers"}));
  command->add_option("--plan", flags->plan,
                      "another plan of the report, by its name; target: what was judged");
  command->callback([=] { *exit_code = Finish(Export(*flags)); });
}

void AddGate(CLI::App& app, int* exit_code) {
  auto flags = std::make_shared<GateFlags>();
  CLI::App* command = app.add_subcommand(
      "gate", "For CI: exit 0 within the limit, 1 over it, 3 undecided, 2 could not say");
  command->footer(
      "Examples:\n"
      "  plumb gate ID                        by the limit of the study\n"
      "  plumb gate ID --max-flip-rate 0.02   by another one");
  flags->session.Register(command);
  command->add_option("ID", flags->id, "the experiment")->required();
  command
      ->add_option("--max-flip-rate", flags->max_flip_rate,
                   "largest flip rate that passes, in (0, 1) (default: the study's own limit)")
      ->check(FlipRateCheck());
  command->add_option("--condition", flags->condition,
                      "a condition of the report (default: the target)");
  command->callback([=] { *exit_code = Gate(*flags); });
}

}  // namespace

void AddReportCommands(CLI::App& app, int* exit_code) {
  AddReport(app, exit_code);
  AddResults(app, exit_code);
  AddExport(app, exit_code);
  AddGate(app, exit_code);
}

}  // namespace plumbline
