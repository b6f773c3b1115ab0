#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/report/format.h"
#include "services/report/tables.h"

namespace plumbline {
namespace {

constexpr size_t kLatexCell = 60;  // characters
constexpr size_t kPageRows = 40;   // more do not fit one page
constexpr size_t kPageColumns = 6;

bool SaysNothing(const std::string& cell) {
  return cell.empty() || cell == "-" || cell == "not defined";
}

std::string LatexCell(const std::string& text) {
  if (text.size() <= kLatexCell) return LatexEscape(text);
  return absl::StrCat(LatexEscape(text.substr(0, kLatexCell)), "\\ldots{}");
}

std::string LatexLine(const std::vector<std::string>& cells, const std::vector<size_t>& shown) {
  std::vector<std::string> texts;
  for (const size_t c : shown) texts.push_back(LatexCell(cells[c]));
  std::string line = absl::StrCat(absl::StrJoin(texts, " & "), " \\\\\n");
  // The line break before this row would take a leading * or [ as its own argument.
  return line[0] == '*' || line[0] == '[' ? "{}" + line : line;
}

}  // namespace

std::vector<size_t> ColumnsWithValues(const Table& table) {
  std::vector<size_t> shown;
  for (size_t c = 0; c < table.columns.size(); ++c) {
    const bool empty = std::all_of(table.rows.begin(), table.rows.end(),
                                   [c](const auto& row) { return SaysNothing(row[c]); });
    if (!empty && static_cast<int>(c) != table.note_column) shown.push_back(c);
  }
  return shown;
}

std::string CsvTable(const Table& table) {
  const auto line = [](const std::vector<std::string>& cells) {
    return absl::StrJoin(cells, ",",
                         [](std::string* out, const std::string& cell) {
                           if (cell != "-") absl::StrAppend(out, CsvCell(cell));
                         }) +
           "\r\n";
  };
  std::string csv = line(table.columns);
  for (const auto& row : table.rows) csv += line(row);
  return csv;
}

std::string LatexTable(const Table& table) {
  const std::vector<size_t> shown = ColumnsWithValues(table);
  const std::string columns = absl::StrCat("{", std::string(shown.size(), 'l'), "}\n");
  const std::string caption = absl::StrCat("\\caption{", LatexEscape(table.caption),
                                           "}\\label{tab:plumbline-", table.name, "}");
  const std::string head =
      absl::StrCat("\\toprule\n", LatexLine(table.columns, shown), "\\midrule\n");
  std::string rows;
  for (const auto& row : table.rows) rows += LatexLine(row, shown);
  if (table.rows.size() > kPageRows) {
    return absl::StrCat("{\\small\n\\begin{longtable}", columns, caption, " \\\\\n", head,
                        "\\endhead\n", rows, "\\bottomrule\n\\end{longtable}\n}\n");
  }
  const bool broad = shown.size() > kPageColumns;
  return absl::StrCat("\\begin{table}\n\\centering\\small\n", caption, "\n",
                      broad ? "\\resizebox{\\textwidth}{!}{%\n" : "", "\\begin{tabular}", columns,
                      head, rows, "\\bottomrule\n\\end{tabular}", broad ? "}" : "",
                      "\n\\end{table}\n");
}

}  // namespace plumbline
