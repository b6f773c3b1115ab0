#include "services/engine/bundle/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_join.h"
#include "services/common/status_macros.h"
#include "services/engine/bundle/json_fields.h"

namespace plumbline {
namespace {

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit
constexpr size_t kMaxDimensions = 8;

uint64_t LittleEndian64(absl::string_view bytes) {
  uint64_t value = 0;
  for (int i = 7; i >= 0; --i) value = (value << 8) | static_cast<uint8_t>(bytes[i]);
  return value;
}

absl::StatusOr<WeightDtype> ParseDtype(const Json& entry, const std::string& path) {
  PLUMB_ASSIGN_OR_RETURN(const std::string name, StringField(entry, "dtype", path));
  for (const WeightDtype dtype : {WeightDtype::kF32, WeightDtype::kF16, WeightDtype::kBf16}) {
    if (name == WeightDtypeName(dtype)) return dtype;
  }
  return WrongField(path + "dtype", "F32, F16 or BF16", entry["dtype"]);
}

absl::StatusOr<std::vector<int64_t>> ParseShape(const Json& entry, const std::string& path) {
  const Json* shape = FindField(entry, "shape");
  if (shape == nullptr || !shape->is_array() || shape->size() > kMaxDimensions) {
    return WrongField(path + "shape", absl::StrCat("a list of at most ", kMaxDimensions, " sizes"),
                      shape == nullptr ? Json() : *shape);
  }
  std::vector<int64_t> sizes;
  for (const Json& size : *shape) {
    PLUMB_ASSIGN_OR_RETURN(const int64_t value, AsInteger(size, path + "shape", 0, INT64_MAX));
    sizes.push_back(value);
  }
  return sizes;
}

absl::StatusOr<uint64_t> ByteCount(const TensorEntry& tensor, const std::string& path) {
  uint64_t bytes = WeightDtypeBytes(tensor.dtype);
  for (const int64_t size : tensor.shape) {
    if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(size), &bytes)) {
      return absl::InvalidArgumentError(absl::StrCat(path, "shape [",
                                                     absl::StrJoin(tensor.shape, ","),
                                                     "] has more bytes than 64 bits count"));
    }
  }
  return bytes;
}

absl::StatusOr<TensorEntry> ParseTensor(const std::string& name, const Json& entry,
                                        uint64_t data_begin, uint64_t data_bytes) {
  const std::string path = absl::StrCat("tensor ", Shown(Json(name)), " ");
  if (!entry.is_object()) return WrongField(path, "an object", entry);
  TensorEntry tensor;
  tensor.name = name;
  PLUMB_ASSIGN_OR_RETURN(tensor.dtype, ParseDtype(entry, path));
  PLUMB_ASSIGN_OR_RETURN(tensor.shape, ParseShape(entry, path));
  PLUMB_ASSIGN_OR_RETURN(tensor.bytes, ByteCount(tensor, path));
  const Json* offsets = FindField(entry, "data_offsets");
  if (offsets == nullptr || !offsets->is_array() || offsets->size() != 2) {
    return WrongField(path + "data_offsets", "[begin, end]",
                      offsets == nullptr ? Json() : *offsets);
  }
  PLUMB_ASSIGN_OR_RETURN(const int64_t begin,
                         AsInteger((*offsets)[0], path + "data_offsets", 0, INT64_MAX));
  PLUMB_ASSIGN_OR_RETURN(const int64_t end,
                         AsInteger((*offsets)[1], path + "data_offsets", begin, INT64_MAX));
  if (static_cast<uint64_t>(end - begin) != tensor.bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, "data_offsets ", Shown(*offsets), " span ", end - begin, " bytes, but ",
                     WeightDtypeName(tensor.dtype), " [", absl::StrJoin(tensor.shape, ","),
                     "] has ", tensor.bytes));
  }
  if (static_cast<uint64_t>(end) > data_bytes) {
    return absl::DataLossError(absl::StrCat(path, "ends at data byte ", end, ", the file has ",
                                            data_bytes, ": it is truncated"));
  }
  tensor.begin = data_begin + static_cast<uint64_t>(begin);
  if (tensor.begin % WeightDtypeBytes(tensor.dtype) != 0) {
    return absl::InvalidArgumentError(absl::StrCat(path, "starts at file byte ", tensor.begin,
                                                   ", not aligned for ",
                                                   WeightDtypeName(tensor.dtype)));
  }
  return tensor;
}

absl::Status ParseMetadata(const Json& json, SafetensorsHeader& header) {
  if (!json.is_object()) return WrongField("__metadata__", "an object of strings", json);
  for (const auto& [key, value] : json.items()) {
    if (!value.is_string())
      return WrongField("__metadata__ " + Shown(Json(key)), "a string", value);
    header.metadata[key] = value.get<std::string>();
  }
  return absl::OkStatus();
}

// Every data byte belongs to exactly one tensor.
absl::Status CheckTiling(const SafetensorsHeader& header, uint64_t data_begin,
                         uint64_t file_bytes) {
  std::vector<const TensorEntry*> order;
  for (const auto& [name, tensor] : header.tensors) order.push_back(&tensor);
  std::sort(order.begin(), order.end(), [](const TensorEntry* a, const TensorEntry* b) {
    return std::make_pair(a->begin, a->bytes) < std::make_pair(b->begin, b->bytes);
  });
  uint64_t next = data_begin;
  for (const TensorEntry* tensor : order) {
    if (tensor->begin != next) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", Shown(Json(tensor->name)), " starts at file byte ", tensor->begin,
                       tensor->begin < next ? " and overlaps the tensor that ends at "
                                            : " and leaves a hole after ",
                       next));
    }
    next += tensor->bytes;
  }
  if (next != file_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensors end at file byte ", next, ", the file has ", file_bytes));
  }
  return absl::OkStatus();
}

absl::Status FileError(const std::string& path) {
  const std::string message = absl::StrCat("cannot open ", path, ": ", strerror(errno));
  if (errno == ENOENT || errno == ENOTDIR) return absl::NotFoundError(message);
  if (errno == EACCES || errno == EPERM) return absl::PermissionDeniedError(message);
  return absl::UnavailableError(message);
}

}  // namespace

const char* WeightDtypeName(WeightDtype dtype) {
  switch (dtype) {
    case WeightDtype::kF32:
      return "F32";
    case WeightDtype::kF16:
      return "F16";
    case WeightDtype::kBf16:
      return "BF16";
  }
  return "?";
}

int WeightDtypeBytes(WeightDtype dtype) { return dtype == WeightDtype::kF32 ? 4 : 2; }

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view file_start,
                                                         uint64_t file_bytes) {
  if (file_bytes < kLengthBytes || file_start.size() < kLengthBytes) {
    return absl::DataLossError(
        absl::StrCat("a safetensors file has at least 8 bytes, this one has ", file_bytes));
  }
  const uint64_t header_bytes = LittleEndian64(file_start);
  if (header_bytes > kMaxHeaderBytes) {
    return absl::InvalidArgumentError(absl::StrCat("header length ", header_bytes,
                                                   " is over the format's limit of ",
                                                   kMaxHeaderBytes, ": not a safetensors file?"));
  }
  const uint64_t data_begin = kLengthBytes + header_bytes;
  if (data_begin > file_bytes || data_begin > file_start.size()) {
    return absl::DataLossError(absl::StrCat("the header ends at byte ", data_begin,
                                            ", the file has ", file_bytes, ": it is truncated"));
  }
  PLUMB_ASSIGN_OR_RETURN(
      const Json json,
      ParseJsonObject(file_start.substr(kLengthBytes, header_bytes), "the safetensors header"));
  SafetensorsHeader header;
  for (const auto& [name, entry] : json.items()) {
    if (name == "__metadata__") {
      PLUMB_RETURN_IF_ERROR(ParseMetadata(entry, header));
      continue;
    }
    PLUMB_ASSIGN_OR_RETURN(header.tensors[name],
                           ParseTensor(name, entry, data_begin, file_bytes - data_begin));
  }
  PLUMB_RETURN_IF_ERROR(CheckTiling(header, data_begin, file_bytes));
  return header;
}

absl::StatusOr<std::unique_ptr<SafetensorsFile>> SafetensorsFile::Open(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return FileError(path);
  struct stat info;
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    close(fd);
    return absl::InvalidArgumentError(absl::StrCat(path, " is not a regular file"));
  }
  auto file = std::unique_ptr<SafetensorsFile>(new SafetensorsFile());
  file->map_bytes_ = static_cast<uint64_t>(info.st_size);
  if (file->map_bytes_ > 0) {
    void* map = mmap(nullptr, file->map_bytes_, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED) {
      const int error = errno;
      close(fd);
      return absl::ResourceExhaustedError(absl::StrCat("cannot map ", path, ": ", strerror(error)));
    }
    file->map_ = static_cast<const char*>(map);
  }
  close(fd);
  auto header =
      ParseSafetensorsHeader(absl::string_view(file->map_, file->map_bytes_), file->map_bytes_);
  if (!header.ok()) return Annotate(header.status(), path);
  file->header_ = *std::move(header);
  return file;
}

SafetensorsFile::~SafetensorsFile() {
  if (map_ != nullptr) munmap(const_cast<char*>(map_), map_bytes_);
}

void DropPages(const TensorView& view) {
  static const auto kPage = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(view.data);
  // Pages that a neighbour shares stay.
  const uintptr_t first = (begin + kPage - 1) / kPage * kPage;
  const uintptr_t last = (begin + view.bytes) / kPage * kPage;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

TensorView SafetensorsFile::View(const TensorEntry& entry) const {
  return {
      .dtype = entry.dtype, .shape = entry.shape, .data = map_ + entry.begin, .bytes = entry.bytes};
}

}  // namespace plumbline
