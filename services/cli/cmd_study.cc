#include <cstdio>
#include <memory>

#include "absl/strings/str_cat.h"
#include "services/cli/commands.h"
#include "services/cli/study_flags.h"

namespace plumbline {
namespace {

// Builds, lets `set_kind` fill in what is special, runs.
template <typename SetKind>
int BuildAndRun(const StudyFlags& flags, SetKind set_kind) {
  absl::StatusOr<v1::Study> study = flags.Build();
  if (!study.ok()) return Finish(study.status());
  set_kind(*study);
  const absl::Status text = flags.AddUtilityText(&*study);
  if (!text.ok()) return Finish(text);
  return RunStudy(flags, *study);
}

constexpr char kShipLimit[] = "largest flip rate that may ship (default 0.05)";
constexpr char kJudgedFormat[] =
    "KV format to judge, such as int4.asym.token (the default) or a whole plan";

// Of the kinds that recommend plans.
void RegisterRepairFlags(StudyFlags& flags, CLI::App* command) {
  flags.RegisterTarget(command, kJudgedFormat);
  flags.RegisterFlipLimit(command, kShipLimit);
  flags.RegisterReplicas(command);
  flags.RegisterUtilityText(command);
}

void AddSweep(CLI::App& app, int* exit_code) {
  auto flags = std::make_shared<StudyFlags>();
  auto plans = std::make_shared<std::vector<std::string>>();
  CLI::App* command =
      app.add_subcommand("sweep", "Flip rates of whole prompt sets under a list of KV formats");
  command->footer(
      "Examples:\n"
      "  plumb sweep --model models/smol\n"
      "  plumb sweep --model models/smol --kv '*:int8.asym.token' --kv '*:fp8_e4m3' --prompts "
      "my.csv");
  flags->Register(command);
  flags->RegisterTarget(
      command, absl::StrCat(kJudgedFormat,
                            "; with --kv plans the default is the first of them that quantizes"));
  flags->RegisterFlipLimit(command, kShipLimit);
  flags->RegisterReplicas(command);
  command->add_option("--kv", *plans,
                      "plan; may be repeated (default: int8 6 5 4 3 2 and the target)");
  command->callback([flags, plans, exit_code] {
    *exit_code = BuildAndRun(*flags, [&](v1::Study& study) {
      study.mutable_sweep();
      for (const std::string& plan : *plans) study.mutable_sweep()->add_plans(plan);
    });
  });
}

void AddDiagnose(CLI::App& app, int* exit_code) {
  auto flags = std::make_shared<StudyFlags>();
  struct Numbers {
    uint32_t screen = 0, confirm = 0, channel = 0;
    bool skip_mitigation = false;
  };
  auto numbers = std::make_shared<Numbers>();
  CLI::App* command = app.add_subcommand(
      "diagnose", "May the target format be served, why not, and which plan repairs it");
  command->footer(
      "Examples:\n"
      "  plumb diagnose --model models/smol\n"
      "  plumb diagnose --model models/smol --target int4.asym.token --prompts "
      "benchmarks/advbench.csv\n"
      "  plumb diagnose --coordinator plumbline:7070 --model my-model --policy paper\n"
      "A repeated command goes on where it was; results that exist are used.");
  flags->Register(command);
  RegisterRepairFlags(*flags, command);
  command->add_option("--screen-prompts", numbers->screen,
                      "refused prompts a layer is tried on first");
  command->add_option("--confirm-prompts", numbers->confirm,
                      "further prompts for layers that flip some");
  command->add_option("--channel-prompts", numbers->channel,
                      "cap on prompts of the channel ablation");
  command->add_flag("--no-plans", numbers->skip_mitigation, "stop after the failure mode");
  command->callback([flags, numbers, exit_code] {
    *exit_code = BuildAndRun(*flags, [&](v1::Study& study) {
      v1::DiagnoseStudy* diagnose = study.mutable_diagnose();
      diagnose->set_screen_prompts(numbers->screen);
      diagnose->set_confirm_prompts(numbers->confirm);
      diagnose->set_channel_prompts(numbers->channel);
      diagnose->set_skip_mitigation(numbers->skip_mitigation);
    });
  });
}

void AddMitigate(CLI::App& app, int* exit_code) {
  auto flags = std::make_shared<StudyFlags>();
  auto plans = std::make_shared<std::vector<std::string>>();
  CLI::App* command = app.add_subcommand(
      "mitigate",
      "Recovery of given plans: chosen on validation prompts, confirmed on test prompts");
  command->footer(
      "Example:\n"
      "  plumb mitigate --model models/smol --kv '*:int4.asym.token,0:fp' "
      "--kv '*:int4.asym.group64'");
  flags->Register(command);
  RegisterRepairFlags(*flags, command);
  command->add_option("--kv", *plans, "plan; may be repeated")->required();
  command->callback([flags, plans, exit_code] {
    *exit_code = BuildAndRun(*flags, [&](v1::Study& study) {
      for (const std::string& plan : *plans) study.mutable_mitigate()->add_plans(plan);
    });
  });
}

void AddCanary(CLI::App& app, int* exit_code) {
  auto flags = std::make_shared<StudyFlags>();
  auto plan = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand(
      "canary", "Baseline and one plan on whole sets: for a scheduled job; then `plumb gate`");
  command->footer("Example:\n  plumb canary --model models/smol --kv '*:int4.asym.token'");
  flags->Register(command);
  flags->RegisterFlipLimit(command, kShipLimit);
  flags->RegisterReplicas(command);
  command->add_option("--kv", *plan, "the plan in service")->required();
  command->callback([flags, plan, exit_code] {
    *exit_code = BuildAndRun(*flags, [&](v1::Study& study) {
      study.mutable_canary()->set_plan(*plan);
      study.mutable_canary()->set_max_flip_rate(flags->flip_limit);
    });
  });
}

void AddCustom(CLI::App& app, int* exit_code) {
  auto flags = std::make_shared<StudyFlags>();
  auto plans = std::make_shared<std::vector<std::string>>();
  CLI::App* command =
      app.add_subcommand("custom", "Any plans on any prompts: counts, no conclusions");
  flags->Register(command);
  flags->RegisterTarget(command,
                        "KV format that memory_vs_target of the JSON report compares with "
                        "(default: none, and no such figure)");
  flags->RegisterFlipLimit(command, "limit to which `plumb gate` holds a condition (default 0.05)");
  command->add_option("--kv", *plans, "plan; may be repeated")->required();
  command->callback([flags, plans, exit_code] {
    *exit_code = BuildAndRun(*flags, [&](v1::Study& study) {
      for (const std::string& plan : *plans) study.mutable_custom()->add_plans(plan);
    });
  });
}

}  // namespace

void AddStudyCommands(CLI::App& app, int* exit_code) {
  AddDiagnose(app, exit_code);
  AddSweep(app, exit_code);
  AddMitigate(app, exit_code);
  AddCanary(app, exit_code);
  AddCustom(app, exit_code);
}

}  // namespace plumbline
