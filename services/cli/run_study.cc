#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "services/cli/commands.h"
#include "services/cli/local_worker.h"
#include "services/cli/progress.h"
#include "services/cli/report_files.h"
#include "services/cli/study_flags.h"
#include "services/common/digest.h"
#include "services/common/files.h"
#include "services/common/status_macros.h"
#include "services/rpc/shutdown_signal.h"
#include "services/rpc/status.h"

namespace plumbline {
namespace {

constexpr int kDetached = 130;
constexpr absl::Duration kWatchRetry = absl::Milliseconds(500);
constexpr absl::Duration kFirstCall = absl::Seconds(5);
constexpr absl::Duration kFirstCallPoll = absl::Milliseconds(100);

bool Ended(v1::ExperimentState state) {
  return state == v1::EXPERIMENT_STATE_SUCCEEDED || state == v1::EXPERIMENT_STATE_FAILED ||
         state == v1::EXPERIMENT_STATE_CANCELLED;
}

// Raise whenever the rules of judging or concluding change: the same command then is a new study
// instead of the report of old rules.
constexpr char kRules[] = "rules/3";

std::string RequestId(const StudyFlags& flags, const v1::Study& study) {
  if (!flags.request_id.empty()) return flags.request_id;
  return absl::StrCat("study-",
                      Sha256Hex(absl::StrCat(kRules, study.SerializeAsString())).substr(0, 32));
}

absl::Status ShowEstimate(Session& session, const v1::Study& study) {
  v1::EstimateStudyRequest request;
  *request.mutable_study() = study;
  PLUMB_ASSIGN_OR_RETURN(
      const v1::EstimateStudyResponse estimate,
      session.experiments().Call(&v1::Experiments::Stub::EstimateStudy, request));
  fprintf(stderr, "%s: at most %s cell%s, %s token%s", estimate.model().name().c_str(),
          HumanCount(static_cast<double>(estimate.cells_at_most())).c_str(),
          estimate.cells_at_most() == 1 ? "" : "s",
          HumanCount(static_cast<double>(estimate.tokens_at_most())).c_str(),
          estimate.tokens_at_most() == 1 ? "" : "s");
  if (estimate.seconds_estimated() > 0) {
    fprintf(stderr, ", at most about %s", HumanDuration(estimate.seconds_estimated()).c_str());
  }
  fprintf(stderr, "; stages:");
  for (const v1::StageProgress& stage : estimate.stages()) {
    fprintf(stderr, " %s (%s)", stage.stage().c_str(),
            HumanCount(static_cast<double>(stage.cells_total())).c_str());
  }
  fprintf(stderr, "\n");
  return absl::OkStatus();
}

// A worker that this command has just started may not have called the coordinator yet.
absl::Status ShowEstimateSoon(Session& session, const v1::Study& study) {
  const absl::Time until =
      absl::Now() + (session.cluster() != nullptr ? kFirstCall : absl::ZeroDuration());
  while (true) {
    const absl::Status status = ShowEstimate(session, study);
    if (!absl::IsUnavailable(status) || absl::Now() >= until) return status;
    absl::SleepFor(kFirstCallPoll);
  }
}

// One Watch stream to its end; `last` is the newest state seen. Stops early when `shutdown` is
// asked for.
absl::Status WatchOnce(Session& session, const std::string& id, const ShutdownSignal& shutdown,
                       ProgressPrinter* printer, v1::Experiment* last) {
  grpc::ClientContext context;  // no deadline: a study takes as long as it takes
  v1::WatchExperimentRequest request;
  request.set_id(id);
  auto stream = session.experiments().stub().WatchExperiment(&context, request);
  // A signal must end a Read that waits for a change which may be far away.
  std::jthread canceller([&](const std::stop_token& stop) {
    while (!stop.stop_requested() && !shutdown.WaitFor(absl::Milliseconds(100))) {
    }
    if (shutdown.requested()) context.TryCancel();
  });
  v1::WatchExperimentResponse update;
  while (stream->Read(&update)) {
    *last = update.experiment();
    printer->Show(*last);
    if (Ended(last->state())) context.TryCancel();
  }
  const grpc::Status status = stream->Finish();
  if (Ended(last->state()) || shutdown.requested()) return absl::OkStatus();
  return FromGrpcStatus(status);
}

int Detach(Session& session, const std::string& id) {
  fprintf(stderr, "\nNothing that was finished is lost. To go on:\n  plumb watch %s %s\n",
          id.c_str(), session.reach().c_str());
  return kDetached;
}

int ReportEnd(Session& session, const v1::Experiment& experiment, const std::string& out) {
  if (experiment.state() == v1::EXPERIMENT_STATE_CANCELLED) {
    fprintf(stderr, "cancelled; go on with: plumb resume %s %s\n", experiment.id().c_str(),
            session.reach().c_str());
    return 1;
  }
  if (experiment.state() == v1::EXPERIMENT_STATE_FAILED) {
    fprintf(stderr, "error: stage %s: %s\n", experiment.stage().c_str(),
            experiment.message().c_str());
    return 1;
  }
  const std::string folder =
      out.empty() ? JoinPath(session.data_dir(), absl::StrCat("reports/", experiment.id())) : out;
  return Finish(WriteReportFolder(session, experiment.id(), folder));
}

}  // namespace

int FollowExperiment(Session& session, const std::string& id, const std::string& out) {
  ShutdownSignal shutdown;
  v1::Experiment last;
  {
    ProgressPrinter printer(isatty(STDERR_FILENO) != 0, session.reach());
    while (!Ended(last.state())) {
      const absl::Status status = WatchOnce(session, id, shutdown, &printer, &last);
      if (shutdown.requested()) break;
      if (session.cluster() != nullptr && !session.cluster()->Healthy().ok()) {
        printer.Finish();
        fprintf(stderr, "To go on: plumb watch %s %s\n", id.c_str(), session.reach().c_str());
        return Finish(session.cluster()->Healthy());
      }
      // The stream also ends when the coordinator is started again or a proxy cuts it: look again.
      const bool passing = status.ok() || absl::IsUnavailable(status) ||
                           absl::IsDeadlineExceeded(status) || absl::IsCancelled(status) ||
                           absl::IsAborted(status);
      if (!passing) return Finish(status);
      if (!Ended(last.state()) && shutdown.WaitFor(kWatchRetry)) break;
    }
  }
  if (!Ended(last.state())) return Detach(session, id);
  return ReportEnd(session, last, out);
}

int RunStudy(const StudyFlags& flags, const v1::Study& study) {
  SessionFlags session_flags = flags.session;
  if (flags.detach && session_flags.coordinator.empty()) {
    return Finish(absl::InvalidArgumentError(
        "--detach needs a cluster that goes on without this command: start one with `plumb up "
        "--model-root DIR` and give the address that it prints as --coordinator HOST:PORT, or "
        "leave --detach out"));
  }
  if (session_flags.coordinator.empty()) session_flags.model_roots = {flags.model};
  if (session_flags.coordinator.empty()) {
    const absl::Status bundle = CheckIsBundle(flags.model, "--coordinator");
    if (!bundle.ok()) return Finish(bundle);
  }
  fprintf(stderr, "%s\n",
          session_flags.coordinator.empty() ? "starting the services on loopback ..."
                                            : "connecting ...");
  absl::StatusOr<std::unique_ptr<Session>> session =
      Session::Open(session_flags, Session::Need::kRun);
  if (!session.ok()) return Finish(session.status());
  v1::CreateExperimentRequest request;
  request.set_request_id(RequestId(flags, study));
  *request.mutable_study() = study;
  request.set_wait_for_model(flags.wait_for_model);
  const auto created =
      (*session)->experiments().Call(&v1::Experiments::Stub::CreateExperiment, request);
  if (!created.ok()) return Finish(created.status());
  const v1::Experiment& experiment = created->experiment();
  fprintf(stderr, "experiment %s%s\n", experiment.id().c_str(),
          Ended(experiment.state()) ? " (finished before)" : "");
  if (!Ended(experiment.state())) {
    const absl::Status status = ShowEstimateSoon(**session, study);
    // Without a worker that has the model there is none; following the study tells so in full.
    if (!status.ok() && (flags.detach || !absl::IsUnavailable(status))) {
      fprintf(stderr, "no estimate: %s\n", std::string(status.message()).c_str());
    }
  }
  if (flags.detach) {
    printf("%s\n", experiment.id().c_str());
    return 0;
  }
  return FollowExperiment(**session, experiment.id(), flags.out);
}

}  // namespace plumbline
