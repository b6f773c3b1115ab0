// The safetensors header: no bytes crash the parser, and what it accepts lies inside the file, each
// byte of data in exactly one tensor.
//
// link: plumb::engine_bundle
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "services/engine/bundle/safetensors.h"

namespace plumbline {
namespace {

void Require(bool holds) {
  if (!holds) abort();
}

void CheckOwners(const SafetensorsHeader& header, uint64_t file_bytes) {
  std::vector<int> owners(file_bytes, 0);
  uint64_t data = 0;
  for (const auto& [name, tensor] : header.tensors) {
    Require(tensor.name == name);
    Require(tensor.begin <= file_bytes && tensor.bytes <= file_bytes - tensor.begin);
    Require(tensor.begin % WeightDtypeBytes(tensor.dtype) == 0);
    uint64_t expected = WeightDtypeBytes(tensor.dtype);
    for (const int64_t size : tensor.shape) expected *= static_cast<uint64_t>(size);
    Require(expected == tensor.bytes);
    for (uint64_t at = tensor.begin; at < tensor.begin + tensor.bytes; ++at) ++owners[at];
    data += tensor.bytes;
  }
  for (uint64_t at = 0; at < file_bytes; ++at) Require(owners[at] == (at >= file_bytes - data));
}

}  // namespace
}  // namespace plumbline

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace plumbline;
  const absl::string_view bytes(reinterpret_cast<const char*>(data), size);
  const auto header = ParseSafetensorsHeader(bytes, size);
  if (header.ok()) {
    CheckOwners(*header, size);
  } else {
    Require(!header.status().message().empty());
  }
  return 0;
}
