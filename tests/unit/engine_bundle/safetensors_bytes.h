// Builds safetensors bytes by hand, sound or broken.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"

namespace plumbline::testing {

inline std::string WithLength(uint64_t header_bytes, const std::string& rest) {
  std::string out;
  for (int i = 0; i < 8; ++i) out.push_back(static_cast<char>((header_bytes >> (8 * i)) & 0xFF));
  return out + rest;
}

// The header padded with spaces so that data starts at a multiple of 8.
inline std::string Safetensors(std::string header, const std::string& data) {
  while (header.size() % 8 != 0) header.push_back(' ');
  return WithLength(header.size(), header + data);
}

inline std::string Entry(const std::string& name, const std::string& dtype,
                         const std::string& shape, const std::string& offsets) {
  return absl::StrCat("\"", name, "\":{\"dtype\":\"", dtype, "\",\"shape\":", shape,
                      ",\"data_offsets\":", offsets, "}");
}

}  // namespace plumbline::testing
