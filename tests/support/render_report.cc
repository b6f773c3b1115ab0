// render_report FOLDER < report.json: writes the report's files of every format into FOLDER, to
// look at a page without running a study.
#include <google/protobuf/util/json_util.h>

#include <fstream>
#include <iostream>
#include <iterator>

#include "services/report/report.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: render_report FOLDER < report.json\n";
    return 2;
  }
  const std::string json{std::istreambuf_iterator<char>(std::cin), {}};
  plumbline::v1::Report report;
  google::protobuf::util::JsonParseOptions options;
  options.ignore_unknown_fields = true;
  if (const auto status = google::protobuf::util::JsonStringToMessage(json, &report, options);
      !status.ok()) {
    std::cerr << "not a report: " << status.ToString() << "\n";
    return 1;
  }
  for (const auto format : {plumbline::v1::REPORT_FORMAT_HTML, plumbline::v1::REPORT_FORMAT_JSON,
                            plumbline::v1::REPORT_FORMAT_CSV, plumbline::v1::REPORT_FORMAT_LATEX}) {
    const auto files = plumbline::RenderReport(report, format, false);
    if (!files.ok()) {
      std::cerr << files.status() << "\n";
      return 1;
    }
    for (const plumbline::ReportFile& file : *files) {
      std::ofstream(std::string(argv[1]) + "/" + file.name, std::ios::binary) << file.bytes;
    }
  }
  return 0;
}
