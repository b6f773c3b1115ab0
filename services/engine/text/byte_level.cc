#include "services/engine/text/byte_level.h"

#include <array>

#include "services/engine/text/utf8.h"

namespace plumbline {
namespace {

constexpr char32_t kFirstStandIn = 0x100;  // bytes without a printable Latin-1 form, in order
constexpr size_t kAlphabetEnd = 0x144;

constexpr bool IsPrintable(int byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

struct Alphabet {
  std::array<char32_t, 256> character{};
  std::array<int, kAlphabetEnd> byte{};
};

constexpr Alphabet MakeAlphabet() {
  Alphabet alphabet;
  for (int& byte : alphabet.byte) byte = -1;
  char32_t next = kFirstStandIn;
  for (int byte = 0; byte < 256; ++byte) {
    const char32_t character = IsPrintable(byte) ? static_cast<char32_t>(byte) : next++;
    alphabet.character[byte] = character;
    alphabet.byte[character] = byte;
  }
  return alphabet;
}

constexpr Alphabet kAlphabet = MakeAlphabet();

}  // namespace

char32_t ByteToCharacter(uint8_t byte) { return kAlphabet.character[byte]; }

int CharacterToByte(char32_t character) {
  return character < kAlphabetEnd ? kAlphabet.byte[character] : -1;
}

std::string ToByteLevel(absl::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const char byte : bytes) AppendUtf8(ByteToCharacter(static_cast<uint8_t>(byte)), out);
  return out;
}

std::string FromByteLevel(absl::string_view token) {
  std::string out;
  for (absl::string_view rest = token; !rest.empty();) {
    const Utf8Step step = DecodeUtf8(rest);
    const int byte = step.valid ? CharacterToByte(step.codepoint) : -1;
    if (byte < 0) return std::string(token);
    out.push_back(static_cast<char>(byte));
    rest.remove_prefix(step.bytes);
  }
  return out;
}

}  // namespace plumbline
