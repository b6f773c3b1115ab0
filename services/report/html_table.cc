#include "absl/strings/str_cat.h"
#include "services/report/format.h"
#include "services/report/tables.h"

namespace plumbline {
namespace {

constexpr size_t kWide = 24;   // may break
constexpr size_t kLong = 72;   // opens on demand
constexpr size_t kShown = 44;  // of a long cell

// Plans and digests stay on one line while they fit; sentences break; longer plans open.
std::string Cell(const std::string& text) {
  const bool sentence = text.find(' ') != std::string::npos;
  if (text.size() <= (sentence ? kWide : kLong)) {
    return absl::StrCat("<td>", HtmlEscape(text), "</td>");
  }
  if (sentence) return absl::StrCat("<td class=\"wide\">", HtmlEscape(text), "</td>");
  return absl::StrCat("<td class=\"wide\"><details><summary>", HtmlEscape(text.substr(0, kShown)),
                      "…</summary>", HtmlEscape(text), "</details></td>");
}

}  // namespace

std::string HtmlTable(const Table& table) {
  const std::vector<size_t> shown = ColumnsWithValues(table);
  std::string html = absl::StrCat(
      "<div class=\"scroll\"><table", table.columns.size() == 2 ? " class=\"pairs\"" : "",
      "><caption><div class=\"stay\">", HtmlEscape(table.caption), "</div></caption><thead><tr>");
  for (const size_t c : shown) {
    absl::StrAppend(&html, "<th>", HtmlEscape(table.columns[c]), "</th>");
  }
  absl::StrAppend(&html, "</tr></thead><tbody>\n");
  for (const auto& row : table.rows) {
    const std::string note =
        table.note_column < 0 ? "" : row[static_cast<size_t>(table.note_column)];
    absl::StrAppend(&html, note.empty() ? "<tr>" : "<tr class=\"noted\">");
    for (const size_t c : shown) absl::StrAppend(&html, Cell(row[c]));
    absl::StrAppend(&html, "</tr>\n");
    if (note.empty()) continue;
    absl::StrAppend(&html, "<tr><td class=\"remark\" colspan=\"", shown.size(),
                    "\"><div class=\"stay\"><details><summary>",
                    HtmlEscape(table.columns[static_cast<size_t>(table.note_column)]), "</summary>",
                    HtmlEscape(note), "</details></div></td></tr>\n");
  }
  absl::StrAppend(&html, "</tbody></table></div>\n");
  return html;
}

}  // namespace plumbline
