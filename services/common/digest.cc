#include "services/common/digest.h"

#include <openssl/evp.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace plumbline {

struct DigestBuilder::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  State() { EVP_DigestInit_ex(context, EVP_sha256(), nullptr); }
  ~State() { EVP_MD_CTX_free(context); }
  void Update(const void* data, size_t size) { EVP_DigestUpdate(context, data, size); }
  std::string Finish() {
    std::array<unsigned char, 32> digest{};
    EVP_DigestFinal_ex(context, digest.data(), nullptr);
    return absl::BytesToHexString(
        absl::string_view(reinterpret_cast<const char*>(digest.data()), digest.size()));
  }
};

std::string Sha256Hex(absl::string_view bytes) {
  std::array<unsigned char, 32> digest{};
  EVP_Digest(bytes.data(), bytes.size(), digest.data(), nullptr, EVP_sha256(), nullptr);
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(digest.data()), digest.size()));
}

absl::StatusOr<std::string> Sha256HexOfFile(const std::string& path) {
  std::unique_ptr<FILE, int (*)(FILE*)> file(fopen(path.c_str(), "rb"), &fclose);
  if (file == nullptr) {
    const std::string message = absl::StrCat("cannot open ", path, ": ", strerror(errno));
    return errno == ENOENT ? absl::NotFoundError(message) : absl::UnavailableError(message);
  }
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  EVP_DigestInit_ex(context, EVP_sha256(), nullptr);
  std::string buffer(1 << 20, '\0');
  size_t read = 0;
  while ((read = fread(buffer.data(), 1, buffer.size(), file.get())) > 0) {
    EVP_DigestUpdate(context, buffer.data(), read);
  }
  const bool failed = ferror(file.get()) != 0;
  std::array<unsigned char, 32> digest{};
  EVP_DigestFinal_ex(context, digest.data(), nullptr);
  EVP_MD_CTX_free(context);
  if (failed) return absl::UnavailableError(absl::StrCat("cannot read ", path));
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(digest.data()), digest.size()));
}

DigestBuilder::DigestBuilder(absl::string_view domain) : state_(std::make_unique<State>()) {
  Add("domain", domain);
}

DigestBuilder::~DigestBuilder() = default;

DigestBuilder& DigestBuilder::Add(absl::string_view name, absl::string_view bytes) {
  const std::string head = absl::StrCat(name.size(), ":", name, ":", bytes.size(), ":");
  state_->Update(head.data(), head.size());
  state_->Update(bytes.data(), bytes.size());
  return *this;
}

DigestBuilder& DigestBuilder::Add(absl::string_view name, const char* bytes) {
  return Add(name, absl::string_view(bytes));
}

DigestBuilder& DigestBuilder::Add(absl::string_view name, int64_t value) {
  return Add(name, absl::string_view(absl::StrCat(value)));
}

DigestBuilder& DigestBuilder::Add(absl::string_view name, double value) {
  char bits[sizeof(double)];
  std::memcpy(bits, &value, sizeof(value));
  return Add(name, absl::string_view(bits, sizeof(bits)));
}

std::string DigestBuilder::Finish() { return state_->Finish(); }

}  // namespace plumbline
