// The report's tables: one definition serves HTML, CSV and LaTeX.
#pragma once

#include <string>
#include <vector>

#include "plumbline/v1/report.pb.h"

namespace plumbline {

struct Table {
  std::string name;  // file-name safe: "sweep", "layers", ...
  std::string caption;
  std::vector<std::string> columns;
  std::vector<std::vector<std::string>> rows;
  int note_column = -1;  // long texts: HTML sets them on a line of their own below their row
};

// Every table that has rows, in the report's order.
std::vector<Table> ReportTables(const v1::Report& report);

// `report`: that the conditions are of.
Table ConditionTable(const std::string& name, const std::string& caption, const v1::Report& report,
                     const google::protobuf::RepeatedPtrField<v1::ConditionResult>& conditions);
// With the target, in the order of OrderedSweep.
Table SweepTable(const v1::Report& report);
Table FloorTable(const v1::Report& report);
Table LayerTable(const v1::Report& report);
Table PlanTable(const v1::Report& report);
Table KvErrorTable(const v1::Report& report);
Table KeyOutlierTable(const v1::Report& report);
Table PromptTable(const v1::Report& report);
Table ProvenanceTable(const v1::Report& report);

// Indices of the columns that have a value in some row, without the note column.
std::vector<size_t> ColumnsWithValues(const Table& table);

// Columns without any value are left out, long cells open on demand.
std::string HtmlTable(const Table& table);
std::string CsvTable(const Table& table);  // CRLF lines, RFC 4180
// Columns as in HTML, long cells cut. Wants booktabs, graphicx and longtable.
std::string LatexTable(const Table& table);

}  // namespace plumbline
