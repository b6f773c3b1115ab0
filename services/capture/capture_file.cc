#include "services/capture/capture_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "services/capture/layer_statistics.h"
#include "services/common/digest.h"
#include "services/common/status_macros.h"

namespace plumbline {
namespace {

constexpr char kMagic[] = "PLUMBCAP";
constexpr uint32_t kVersion = 1, kVersionWithStatistics = 2;
constexpr size_t kPreludeBytes = 8 + 4;
constexpr size_t kDigestChars = 64;
constexpr size_t kTrailerBytes = 8 + kDigestChars;
constexpr uint64_t kMaxIndexBytes = uint64_t{1} << 30;

absl::Status FileError(absl::string_view what, absl::string_view path) {
  const std::string message = absl::StrCat("cannot ", what, " ", path, ": ", strerror(errno));
  if (errno == ENOSPC || errno == EDQUOT) return absl::ResourceExhaustedError(message);
  if (errno == ENOENT) return absl::NotFoundError(message);
  if (errno == EACCES || errno == EPERM) return absl::PermissionDeniedError(message);
  return absl::UnavailableError(message);
}

template <typename T>
void Put(std::string* out, T value) {
  out->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void PutText(std::string* out, const std::string& text) {
  Put<uint64_t>(out, text.size());
  out->append(text);
}

// Reads what Put wrote; `good` turns false at the first byte that is missing.
class Cursor {
 public:
  explicit Cursor(absl::string_view bytes) : rest_(bytes) {}
  template <typename T>
  T Get() {
    T value{};
    if (rest_.size() < sizeof(T)) {
      good_ = false;
      return value;
    }
    memcpy(&value, rest_.data(), sizeof(T));
    rest_.remove_prefix(sizeof(T));
    return value;
  }
  std::string GetText() {
    const auto size = Get<uint64_t>();
    if (size > rest_.size()) {
      good_ = false;
      return "";
    }
    std::string text(rest_.substr(0, size));
    rest_.remove_prefix(size);
    return text;
  }
  bool good() const { return good_; }
  bool at_end() const { return rest_.empty(); }

 private:
  absl::string_view rest_;
  bool good_ = true;
};

std::string Serialized(const v1::CaptureHeader& header) { return header.SerializeAsString(); }

std::string BlockDigest(const v1::ActivationBlock& block) {
  return DigestBuilder("capture-block/1")
      .Add("layer", static_cast<int64_t>(block.layer()))
      .Add("prompt", static_cast<int64_t>(block.prompt_index()))
      .Add("tokens", static_cast<int64_t>(block.tokens()))
      .Add("keys", absl::string_view(block.keys()))
      .Add("values", absl::string_view(block.values()))
      .Add("queries", absl::string_view(block.queries()))
      .Finish();
}

std::string DigestOf(const CaptureIndex& index) {
  DigestBuilder builder("capture/1");
  const v1::CaptureHeader& header = index.header;
  builder.Add("id", absl::string_view(header.capture_id()))
      .Add("model", absl::string_view(header.model_digest()))
      .Add("numerics", absl::string_view(header.numerics_class_id()))
      .Add("kv_heads", static_cast<int64_t>(header.num_kv_heads()))
      .Add("heads", static_cast<int64_t>(header.num_heads()))
      .Add("head_dim", static_cast<int64_t>(header.head_dim()))
      .Add("prompts", static_cast<int64_t>(header.prompts()));
  for (uint32_t layer : header.layers()) builder.Add("layer", static_cast<int64_t>(layer));
  for (double rotation : header.rope_inverse_frequency()) builder.Add("rotation", rotation);
  for (uint32_t layer : header.statistics_layers()) {
    builder.Add("statistics_layer", static_cast<int64_t>(layer));
  }
  for (const auto& block : index.blocks) builder.Add("block", absl::string_view(block.sha256));
  for (const auto& entry : index.statistics) {
    builder.Add("statistics", absl::string_view(entry.sha256));
  }
  return builder.Finish();
}

std::string EncodeIndex(const CaptureIndex& index) {
  std::string bytes;
  PutText(&bytes, Serialized(index.header));
  PutText(&bytes, index.digest);
  Put<uint64_t>(&bytes, index.blocks.size());
  for (const CaptureIndex::Block& block : index.blocks) {
    Put(&bytes, block.layer);
    Put(&bytes, block.prompt);
    Put(&bytes, block.tokens);
    Put(&bytes, block.offset);
    Put(&bytes, block.keys_bytes);
    Put(&bytes, block.values_bytes);
    Put(&bytes, block.queries_bytes);
    PutText(&bytes, block.sha256);
  }
  for (const CaptureIndex::Statistics& entry : index.statistics) {
    Put(&bytes, entry.layer);
    Put(&bytes, entry.offset);
    Put(&bytes, entry.bytes);
    PutText(&bytes, entry.sha256);
  }
  return bytes;
}

absl::StatusOr<CaptureIndex> DecodeIndex(absl::string_view bytes, const std::string& path) {
  CaptureIndex index;
  Cursor cursor(bytes);
  const bool parsed = index.header.ParseFromString(cursor.GetText());
  index.digest = cursor.GetText();
  const auto count = cursor.Get<uint64_t>();
  for (uint64_t i = 0; i < count && cursor.good(); ++i) {
    CaptureIndex::Block block;
    block.layer = cursor.Get<uint32_t>();
    block.prompt = cursor.Get<uint32_t>();
    block.tokens = cursor.Get<uint32_t>();
    block.offset = cursor.Get<uint64_t>();
    block.keys_bytes = cursor.Get<uint64_t>();
    block.values_bytes = cursor.Get<uint64_t>();
    block.queries_bytes = cursor.Get<uint64_t>();
    block.sha256 = cursor.GetText();
    index.blocks.push_back(std::move(block));
  }
  for (int i = 0; i < index.header.statistics_layers_size() && cursor.good(); ++i) {
    CaptureIndex::Statistics entry;
    entry.layer = cursor.Get<uint32_t>();
    entry.offset = cursor.Get<uint64_t>();
    entry.bytes = cursor.Get<uint64_t>();
    entry.sha256 = cursor.GetText();
    index.statistics.push_back(std::move(entry));
  }
  if (!parsed || !cursor.good() || !cursor.at_end() || DigestOf(index) != index.digest) {
    return absl::DataLossError(absl::StrCat("the index of ", path, " cannot be read"));
  }
  return index;
}

class InputFile {
 public:
  static absl::StatusOr<InputFile> Open(const std::string& path) {
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    struct stat info = {};
    if (fd < 0 || fstat(fd, &info) != 0) return FileError("open", path);
    return InputFile(path, fd, static_cast<uint64_t>(info.st_size));
  }
  InputFile(InputFile&& other) noexcept
      : path_(std::move(other.path_)), fd_(other.fd_), size_(other.size_) {
    other.fd_ = -1;
  }
  ~InputFile() {
    if (fd_ >= 0) close(fd_);
  }
  uint64_t size() const { return size_; }
  absl::StatusOr<std::string> Get(uint64_t offset, uint64_t length) const {
    if (offset > size_ || length > size_ - offset) {
      return absl::DataLossError(absl::StrCat(path_, " is cut: ", length, " bytes at ", offset,
                                              " are beyond its end at ", size_));
    }
    std::string bytes(length, '\0');
    uint64_t done = 0;
    while (done < length) {
      const ssize_t got =
          pread(fd_, bytes.data() + done, length - done, static_cast<off_t>(offset + done));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return FileError("read", path_);
      if (got == 0) return absl::DataLossError(absl::StrCat(path_, " shrank while being read"));
      done += static_cast<uint64_t>(got);
    }
    return bytes;
  }

 private:
  InputFile(std::string path, int fd, uint64_t size)
      : path_(std::move(path)), fd_(fd), size_(size) {}
  std::string path_;
  int fd_;
  uint64_t size_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<CaptureWriter>> CaptureWriter::Create(
    const std::string& temporary_path, const v1::CaptureHeader& header) {
  const int fd =
      open(temporary_path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, S_IRUSR | S_IWUSR);
  if (fd < 0) return FileError("create", temporary_path);
  std::unique_ptr<CaptureWriter> writer(new CaptureWriter(temporary_path, fd));
  writer->index_.header = header;
  std::string prelude(kMagic, 8);
  Put(&prelude, header.statistics_layers().empty() ? kVersion : kVersionWithStatistics);
  PLUMB_RETURN_IF_ERROR(writer->Write(prelude));
  return writer;
}

CaptureWriter::~CaptureWriter() {
  close(fd_);
  if (!committed_) unlink(path_.c_str());
}

absl::Status CaptureWriter::Write(const std::string& bytes) {
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t wrote = write(fd_, bytes.data() + done, bytes.size() - done);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return FileError("write", path_);
    done += static_cast<size_t>(wrote);
  }
  offset_ += bytes.size();
  return absl::OkStatus();
}

absl::Status CaptureWriter::Append(const v1::ActivationBlock& block) {
  CaptureIndex::Block entry;
  entry.layer = block.layer();
  entry.prompt = block.prompt_index();
  entry.tokens = block.tokens();
  entry.offset = offset_;
  entry.keys_bytes = block.keys().size();
  entry.values_bytes = block.values().size();
  entry.queries_bytes = block.queries().size();
  entry.sha256 = BlockDigest(block);
  PLUMB_RETURN_IF_ERROR(Write(block.keys()));
  PLUMB_RETURN_IF_ERROR(Write(block.values()));
  PLUMB_RETURN_IF_ERROR(Write(block.queries()));
  index_.blocks.push_back(std::move(entry));
  return absl::OkStatus();
}

absl::Status CaptureWriter::Append(const v1::LayerStats& statistics) {
  const std::string bytes = statistics.SerializeAsString();
  CaptureIndex::Statistics entry = {statistics.layer(), offset_, bytes.size(),
                                    StatisticsDigest(statistics)};
  PLUMB_RETURN_IF_ERROR(Write(bytes));
  index_.statistics.push_back(std::move(entry));
  return absl::OkStatus();
}

absl::StatusOr<CaptureIndex> CaptureWriter::Finish() {
  std::sort(index_.blocks.begin(), index_.blocks.end(),
            [](const CaptureIndex::Block& a, const CaptureIndex::Block& b) {
              return std::pair(a.layer, a.prompt) < std::pair(b.layer, b.prompt);
            });
  std::sort(index_.statistics.begin(), index_.statistics.end(),
            [](const CaptureIndex::Statistics& a, const CaptureIndex::Statistics& b) {
              return a.layer < b.layer;
            });
  index_.digest = DigestOf(index_);
  const std::string encoded = EncodeIndex(index_);
  std::string trailer;
  Put<uint64_t>(&trailer, offset_);
  trailer += Sha256Hex(encoded);
  PLUMB_RETURN_IF_ERROR(Write(encoded));
  PLUMB_RETURN_IF_ERROR(Write(trailer));
  if (fsync(fd_) != 0) return FileError("sync", path_);
  index_.bytes = offset_;
  return index_;
}

absl::Status CaptureWriter::CommitTo(const std::string& path) {
  if (rename(path_.c_str(), path.c_str()) != 0) return FileError("rename to", path);
  committed_ = true;
  return absl::OkStatus();
}

absl::StatusOr<CaptureIndex> ReadCaptureIndex(const std::string& path) {
  PLUMB_ASSIGN_OR_RETURN(InputFile file, InputFile::Open(path));
  if (file.size() < kPreludeBytes + kTrailerBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " is no capture: it has ", file.size(), " bytes"));
  }
  PLUMB_ASSIGN_OR_RETURN(std::string prelude, file.Get(0, kPreludeBytes));
  const auto version = Cursor(absl::string_view(prelude).substr(8)).Get<uint32_t>();
  if (prelude.substr(0, 8) != absl::string_view(kMagic, 8) || version < kVersion ||
      version > kVersionWithStatistics) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " is no capture of version ", kVersion, " or ", kVersionWithStatistics));
  }
  PLUMB_ASSIGN_OR_RETURN(std::string trailer, file.Get(file.size() - kTrailerBytes, kTrailerBytes));
  const auto offset = Cursor(trailer).Get<uint64_t>();
  const uint64_t end = file.size() - kTrailerBytes;
  if (offset < kPreludeBytes || offset > end || end - offset > kMaxIndexBytes) {
    return absl::DataLossError(
        absl::StrCat(path, " is cut or changed: its index would begin at ", offset));
  }
  PLUMB_ASSIGN_OR_RETURN(std::string encoded, file.Get(offset, end - offset));
  if (Sha256Hex(encoded) != trailer.substr(8)) {
    return absl::DataLossError(absl::StrCat("the index of ", path, " does not fit its SHA-256"));
  }
  PLUMB_ASSIGN_OR_RETURN(CaptureIndex index, DecodeIndex(encoded, path));
  index.bytes = file.size();
  return index;
}

absl::StatusOr<v1::ActivationBlock> ReadCaptureBlock(const std::string& path,
                                                     const CaptureIndex::Block& entry) {
  PLUMB_ASSIGN_OR_RETURN(InputFile file, InputFile::Open(path));
  v1::ActivationBlock block;
  block.set_layer(entry.layer);
  block.set_prompt_index(entry.prompt);
  block.set_tokens(entry.tokens);
  PLUMB_ASSIGN_OR_RETURN(*block.mutable_keys(), file.Get(entry.offset, entry.keys_bytes));
  PLUMB_ASSIGN_OR_RETURN(*block.mutable_values(),
                         file.Get(entry.offset + entry.keys_bytes, entry.values_bytes));
  PLUMB_ASSIGN_OR_RETURN(
      *block.mutable_queries(),
      file.Get(entry.offset + entry.keys_bytes + entry.values_bytes, entry.queries_bytes));
  if (BlockDigest(block) != entry.sha256) {
    return absl::DataLossError(absl::StrCat("the block of layer ", entry.layer, ", prompt ",
                                            entry.prompt, " in ", path,
                                            " does not fit its SHA-256: delete the capture and "
                                            "record it again"));
  }
  return block;
}

absl::StatusOr<v1::LayerStats> ReadCaptureStatistics(const std::string& path,
                                                     const CaptureIndex::Statistics& entry) {
  PLUMB_ASSIGN_OR_RETURN(InputFile file, InputFile::Open(path));
  PLUMB_ASSIGN_OR_RETURN(const std::string bytes, file.Get(entry.offset, entry.bytes));
  v1::LayerStats statistics;
  if (!statistics.ParseFromString(bytes) || StatisticsDigest(statistics) != entry.sha256) {
    return absl::DataLossError(absl::StrCat("the statistics of layer ", entry.layer, " in ", path,
                                            " do not fit their SHA-256: delete the capture and "
                                            "record it again"));
  }
  return statistics;
}

}  // namespace plumbline
