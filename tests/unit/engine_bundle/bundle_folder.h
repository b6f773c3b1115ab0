// A small bundle on disk, as the importer would write it.
#pragma once

#include <map>
#include <string>

#include "nlohmann/json.hpp"
#include "services/common/digest.h"
#include "services/common/files.h"

namespace plumbline::testing {

using Json = nlohmann::json;

inline Json ManifestOf(const std::map<std::string, std::string>& files) {
  Json json = {{"format", "plumbline-bundle/1"},
               {"name", "tiny"},
               {"source", "test"},
               {"license", "apache-2.0"},
               {"files", Json::object()}};
  std::string text;
  for (const auto& [name, bytes] : files) {
    const std::string digest = Sha256Hex(bytes);
    json["files"][name] = {{"sha256", digest}, {"bytes", bytes.size()}};
    text += name + "\n" + digest + "\n";
  }
  json["model_digest"] = Sha256Hex(text);
  return json;
}

inline std::map<std::string, std::string> SmallFiles() {
  return {
      {"config.json", "{}"}, {"tokenizer.json", "{\"a\":1}"}, {"model.safetensors", "12345678"}};
}

}  // namespace plumbline::testing
