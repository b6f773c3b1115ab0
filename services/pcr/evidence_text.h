// Counts and doubts as the parts of an explanation. Internal to the classifier.
#pragma once

#include <optional>
#include <string>

#include "services/pcr/classifier.h"

namespace plumbline {

std::string WholePercent(double fraction);           // "16%"
std::string CountText(const FlipCount& count);       // "9 of 57 (16%)"
std::string RatioText(const RatioPosterior& ratio);  // "92% [80%, 97%]"

// The layers that may be critical, those with the most flips by their numbers.
std::string UnclearLayersText(const LayerSelection& selection);

// Where half of the answers or more broke down.
Finding BrokenFinding(const Evidence& evidence, const LayerSelection& selection);
// Why the mode of `result` cannot be named from answers that mostly broke down; absent where it
// can.
std::optional<std::string> BrokenDoubt(const Evidence& evidence, const Classification& result);

}  // namespace plumbline
