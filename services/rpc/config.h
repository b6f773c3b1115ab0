// Configs: one message a binary, read as text proto or proto3 JSON.
//
//   v1::JudgeConfig config;
//   PLUMB_RETURN_IF_ERROR(LoadConfigFile("judge.txtpb", &config));
//   PLUMB_RETURN_IF_ERROR(ApplyOverride("server.listen=127.0.0.1:0", &config));
//   std::string digest = ConfigDigest(config);
//
// Every error names the file or flag, the field and the value.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/message.h"

namespace plumbline {

enum class ConfigFormat { kText, kJson };

// By the extension (.json; .txtpb .textproto .pbtxt), else by the first character: '{' means JSON.
ConfigFormat GuessConfigFormat(absl::string_view path, absl::string_view text);

// InvalidArgument with line and column for unknown fields, unknown enum values (names and numbers),
// repeated singular fields and values out of range. `name` stands for the text in messages. On an
// error *config is left as it was.
absl::Status ParseConfig(absl::string_view name, absl::string_view text, ConfigFormat format,
                         google::protobuf::Message* config);

// NotFound / PermissionDenied for the file, ResourceExhausted above 4 MiB, else as ParseConfig.
absl::Status LoadConfigFile(const std::string& path, google::protobuf::Message* config);

// "path=value". A path is field names joined by '.'; an element of a repeated field is name[INDEX]
// or name.INDEX, where INDEX equal to the present count appends. Bools are true/false, enums go by
// name. InvalidArgument names the part of the path that is wrong and what exists there.
absl::Status ApplyOverride(absl::string_view assignment, google::protobuf::Message* config);

// Text proto, fields in order, as --print-config shows it. It can be read back.
std::string ConfigText(const google::protobuf::Message& config);

// SHA-256 over message type and resolved fields: two configs have equal digests exactly when they
// are equal. The digest stands in every result's provenance.
std::string ConfigDigest(const google::protobuf::Message& config);

}  // namespace plumbline
