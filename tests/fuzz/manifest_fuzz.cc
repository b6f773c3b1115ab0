// The JSON files of a bundle: manifest, config and chat format. No bytes crash their parsers; names
// that a manifest may list are plain, sizes that a config may have fit together.
//
// link: plumb::engine_bundle plumb::engine_text
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "services/engine/chat_format.h"
#include "services/engine/model_bundle.h"

namespace plumbline {
namespace {

void Require(bool holds) {
  if (!holds) abort();
}

void CheckManifest(const std::string& text) {
  const auto manifest = ParseBundleManifest(text);
  if (!manifest.ok()) return;
  for (const auto& [name, file] : manifest->files) {
    Require(!name.empty() && name[0] != '.' && name.find('/') == std::string::npos);
    Require(file.bytes >= 0 && file.sha256.size() == 64);
  }
}

void CheckConfig(const std::string& text) {
  const auto config = ParseModelConfig(text);
  if (!config.ok()) return;
  Require(config->num_layers > 0 && config->num_heads % config->num_kv_heads == 0);
  Require(config->head_dim > 0 && config->head_dim % 2 == 0);
  Require(config->rms_norm_eps > 0 && config->rope_theta > 0);
  for (const int32_t id : config->eos_token_ids) Require(id >= 0 && id < config->vocab_size);
}

void CheckChat(const std::string& text) {
  const auto chat = ChatFormat::Parse(text);
  if (!chat.ok()) return;
  const auto rendered = chat->Render({{"system", " a\n"}, {"user", "\xff b"}});
  if (rendered.ok()) Require(rendered->find("b") != std::string::npos);
}

}  // namespace
}  // namespace plumbline

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  plumbline::CheckManifest(text);
  plumbline::CheckConfig(text);
  plumbline::CheckChat(text);
  return 0;
}
