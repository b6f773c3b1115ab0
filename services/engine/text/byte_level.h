// The byte-level alphabet of GPT-2: every byte has a printable character, so that a vocabulary of
// strings can hold any byte sequence.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace plumbline {

char32_t ByteToCharacter(uint8_t byte);
// -1 when the character stands for no byte.
int CharacterToByte(char32_t character);

// Valid UTF-8 text of the alphabet, one character a byte.
std::string ToByteLevel(absl::string_view bytes);

// The bytes a token stands for; a token with a character outside the alphabet (an added token)
// stands for its own UTF-8 bytes.
std::string FromByteLevel(absl::string_view token);

}  // namespace plumbline
