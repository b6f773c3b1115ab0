// Pieces of the page. Texts are escaped here, markup is not.
#pragma once

#include <string>

#include "plumbline/v1/report.pb.h"
#include "services/report/tables.h"

namespace plumbline {

std::string Capitalised(std::string text);
std::string Paragraph(const std::string& text);  // empty for an empty text
// One picture for wide screens and one for phones; empty without a picture.
std::string Figure(const std::string& wide, const std::string& narrow, const std::string& legend,
                   const std::string& caption);
std::string TableDetails(const Table& table, const std::string& summary);

// The verdict, its figures and the warnings: what a reader must have seen.
std::string FirstScreen(const v1::Report& report);

}  // namespace plumbline
