#include "services/report/html_parts.h"

#include <cctype>

#include "absl/strings/str_cat.h"
#include "services/report/format.h"

namespace plumbline {

std::string Capitalised(std::string text) {
  if (!text.empty()) text[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(text[0])));
  return text;
}

std::string Paragraph(const std::string& text) {
  return text.empty() ? "" : absl::StrCat("<p>", HtmlEscape(text), "</p>\n");
}

std::string Figure(const std::string& wide, const std::string& narrow, const std::string& legend,
                   const std::string& caption) {
  if (wide.empty()) return "";
  return absl::StrCat("<figure><div class=\"on-wide\">", wide, "</div><div class=\"on-narrow\">",
                      narrow, "</div>",
                      legend.empty() ? "" : absl::StrCat("<p class=\"legend\">", legend, "</p>"),
                      "<figcaption>", HtmlEscape(caption), "</figcaption></figure>\n");
}

std::string TableDetails(const Table& table, const std::string& summary) {
  if (table.rows.empty()) return "";
  return absl::StrCat("<details><summary>", HtmlEscape(summary), "</summary>", HtmlTable(table),
                      "</details>\n");
}

}  // namespace plumbline
