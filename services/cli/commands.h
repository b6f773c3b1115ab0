// The subcommands of `plumb`. Each Add... registers one family on the app; a chosen subcommand
// stores its exit code: 0 done, 1 failed (or gate: over the limit), 2 bad request, 3 undecided
// (gate), 130 detached.
#pragma once

#include "CLI/CLI.hpp"
#include "absl/status/status.h"

namespace plumbline {

void AddModelCommands(CLI::App& app, int* exit_code);
void AddPromptCommands(CLI::App& app, int* exit_code);
void AddGenerateCommand(CLI::App& app, int* exit_code);
void AddUpCommand(CLI::App& app, int* exit_code);
void AddStudyCommands(CLI::App& app, int* exit_code);       // sweep diagnose mitigate canary custom
void AddExperimentCommands(CLI::App& app, int* exit_code);  // list show watch cancel resume purge
void AddReportCommands(CLI::App& app, int* exit_code);      // report results export gate

// Whether a write to standard output has failed: a reader such as `head` has what it wants, or the
// disk is full. Loops over long output end then; main() tells the two apart.
bool OutputBroken();

// Prints "error: ..." on standard error where status is not OK and returns the exit code for it.
int Finish(const absl::Status& status);

}  // namespace plumbline
