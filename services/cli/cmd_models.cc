#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/cli/child_process.h"
#include "services/cli/commands.h"
#include "services/cli/install_layout.h"
#include "services/common/figures.h"
#include "services/common/files.h"
#include "services/common/status_macros.h"
#include "services/engine/model_bundle.h"
#include "services/rpc/shutdown_signal.h"
#include "services/rpc/status.h"

namespace plumbline {
namespace {

struct ImportFlags {
  std::string source, out, lora, name, dtype, trained_on;
  bool force = false, no_chat = false;
};

// The import is a Python step: reading GGUF and rendering Jinja templates is what its libraries do.
int Import(const ImportFlags& flags) {
  const absl::StatusOr<std::string> script = FindShared("scripts/models/import_model.py");
  if (!script.ok()) return Finish(script.status());
  std::vector<std::string> argv = {FindPython(), *script, flags.source, "--out", flags.out};
  const auto add = [&argv](const char* flag, const std::string& value) {
    if (value.empty()) return;
    argv.push_back(flag);
    argv.push_back(value);
  };
  add("--lora", flags.lora);
  add("--name", flags.name);
  add("--dtype", flags.dtype);
  add("--trained-on", flags.trained_on);
  if (flags.no_chat) argv.push_back("--no-chat");
  if (flags.force) argv.push_back("--force");
  ShutdownSignal shutdown;
  absl::StatusOr<std::unique_ptr<ChildProcess>> child = ChildProcess::Start(argv, "");
  if (!child.ok()) return Finish(child.status());
  while (!(*child)->Ended()) {
    if (shutdown.WaitFor(absl::Milliseconds(50))) (*child)->Stop(absl::Seconds(5));
  }
  return (*child)->exit_code();
}

absl::Status Show(const std::string& dir, bool verify) {
  PLUMB_ASSIGN_OR_RETURN(const BundleManifest manifest, OpenBundle(dir, verify));
  PLUMB_ASSIGN_OR_RETURN(const std::string json, ReadFile(JoinPath(dir, "config.json")));
  PLUMB_ASSIGN_OR_RETURN(const ModelConfig config, ParseModelConfig(json));
  printf("%s  %s\n", manifest.name.c_str(), manifest.model_digest.c_str());
  printf("  %s, %s, %s, %s of %d, vocabulary %d, context %lld\n", config.family.c_str(),
         CountText(config.num_layers, "layer").c_str(), CountText(config.num_heads, "head").c_str(),
         CountText(config.num_kv_heads, "kv head").c_str(), config.head_dim, config.vocab_size,
         static_cast<long long>(config.max_context));
  if (!manifest.has_chat_format()) {
    printf("  no chat format: takes raw prompts only (--raw), as base models do\n");
  }
  printf("  source %s, licence %s\n", manifest.source.c_str(), manifest.license.c_str());
  for (const auto& [name, file] : manifest.files) {
    printf("  %s %12lld  %s\n", file.sha256.substr(0, 16).c_str(),
           static_cast<long long>(file.bytes), name.c_str());
  }
  if (manifest.has_trained_on()) {
    printf("  studies leave out the prompts of %s (--include-trained-on keeps them)\n",
           kTrainedOnFile);
  }
  printf(
      "  special-token look-alikes in prompts stay text (--parse-special turns them into "
      "tokens)\n");
  if (verify) printf("  every digest is right\n");
  return absl::OkStatus();
}

}  // namespace

bool OutputBroken() { return ferror(stdout) != 0; }

int Finish(const absl::Status& status) {
  if (!status.ok()) fprintf(stderr, "error: %s\n", std::string(status.message()).c_str());
  return ExitCode(status);
}

void AddModelCommands(CLI::App& app, int* exit_code) {
  CLI::App* models = app.add_subcommand("models", "Model bundles: import, show");
  models->require_subcommand(1);
  CLI::App* import = models->add_subcommand(
      "import", "A Hugging Face folder, a GGUF file or a bundle to a bundle the worker reads");
  import->footer(
      "Examples:\n"
      "  plumb models import ~/models/Qwen2.5-0.5B-Instruct --out models/qwen --name qwen\n"
      "  plumb models import model.gguf --out models/mine --lora adapter.safetensors "
      "--trained-on trained_on.sha256");
  auto flags = std::make_shared<ImportFlags>();
  import
      ->add_option(
          "SOURCE", flags->source,
          "folder, .gguf file or bundle; of a bundle its chat format and trained-on list stay")
      ->required();
  import->add_option("--out", flags->out, "bundle folder to make")->required();
  import->add_option("--lora", flags->lora, "adapter to merge");
  import->add_option(
      "--name", flags->name,
      "the model's name (default: the source folder's, or the GGUF file's or bundle's own)");
  import->add_option("--dtype", flags->dtype, "keep, f32, bf16 or f16")
      ->check(CLI::IsMember({"keep", "f32", "bf16", "f16"}));
  import->add_option(
      "--trained-on", flags->trained_on,
      "file of hashes, one a line, of prompts that the model was trained on: studies "
      "leave them out; joins the list of a bundle of the same source that is there");
  import->add_flag("--no-chat", flags->no_chat,
                   "leave the chat template out; the bundle then takes raw prompts only (--raw)");
  import->add_flag("--force", flags->force, "replace an existing bundle");
  import->callback([=] { *exit_code = Import(*flags);
});

CLI::App* show = models->add_subcommand("show", "A bundle's model, files and digests");
auto dir = std::make_shared<std::string>();
auto verify = std::make_shared<bool>(false);
show->add_option("DIR", *dir, "bundle folder")->required();
show->add_flag("--verify", *verify, "hash every file");
show->callback([=] { *exit_code = Finish(Show(*dir, *verify)); });
}  // namespace plumbline

}  // namespace plumbline
