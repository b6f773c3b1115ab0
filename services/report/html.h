// The report as one self-contained HTML page.
#pragma once

#include <string>

#include "plumbline/v1/report.pb.h"

namespace plumbline {

// Texts are shown where the report carries them; the caller has removed them otherwise.
std::string RenderHtml(const v1::Report& report);

}  // namespace plumbline
