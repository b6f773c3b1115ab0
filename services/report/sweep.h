// The formats of a sweep in the order in which reports show them.
#pragma once

#include <string>
#include <vector>

#include "plumbline/v1/report.pb.h"

namespace plumbline {

// Bits of "int4.asym.token", "*:int4.sym.group64": 4; 0 for formats that are not integers.
int FormatBits(const std::string& name);
// What follows the bits: ".asym.token". Empty for formats that are not integers.
std::string FormatFamily(const std::string& name);

// The sweep by bits, most first, then the formats that are not integers; ties as they came. The
// target is among them once: added under the name "target" where no format of the sweep has its
// plan.
std::vector<v1::ConditionResult> OrderedSweep(const v1::Report& report);
bool IsTarget(const v1::Report& report, const v1::ConditionResult& condition);

}  // namespace plumbline
