// The flags that every study command shares, and the study they make.
#pragma once

#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/statusor.h"
#include "plumbline/v1/study.pb.h"
#include "services/cli/session.h"

namespace plumbline {

struct StudyFlags {
  SessionFlags session;
  std::string model;  // bundle folder (standalone) or name / digest (coordinator)
  std::vector<std::string> prompts;
  std::vector<std::string> exclude_files;
  std::string target, policy = "plumbline", judge, system_prompt, name, request_id,
                      utility_text_file;
  uint32_t max_new_tokens = 0, max_prompts = 0, jitter_replicas = 0;
  uint64_t seed = 0;
  double temperature = 0, top_p = 0, flip_limit = 0;
  bool run_to_the_end = false, paper_quirks = false, parse_special = false, raw = false,
       detach = false, include_trained_on = false, wait_for_model = false;
  std::string out;  // where the report goes

  // What every kind of study heeds; the others are for the kinds that do.
  void Register(CLI::App* app);
  void RegisterTarget(CLI::App* app, const std::string& help);
  void RegisterFlipLimit(CLI::App* app, const std::string& help);
  void RegisterReplicas(CLI::App* app);
  void RegisterUtilityText(CLI::App* app);

  // Everything but the kind. InvalidArgument for flags that contradict each other. Reads prompt
  // sets, exclusion lists and the bundle's own list of prompts that the model was trained on, and
  // tells on standard error what it leaves out.
  absl::StatusOr<v1::Study> Build() const;
  // The text that was asked for; for studies that recommend plans, else the built-in one.
  absl::Status AddUtilityText(v1::Study* study) const;
};

// Creates the study, shows its size and its progress, writes the report and prints the verdict.
// The exit code as commands.h says.
int RunStudy(const StudyFlags& flags, const v1::Study& study);

// Follows an experiment to its end; the same last part as RunStudy.
int FollowExperiment(Session& session, const std::string& id, const std::string& out);

}  // namespace plumbline
