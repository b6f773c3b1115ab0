#include "services/prompts/csv_reader.h"

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"

namespace plumbline::prompts_internal {
namespace {

class Reader {
 public:
  Reader(absl::string_view bytes, const std::string& where) : bytes_(bytes), where_(where) {}

  bool AtEnd() const { return offset_ == bytes_.size(); }

  absl::StatusOr<CsvRecord> Record() {
    CsvRecord record;
    const Location start = here_;
    while (true) {
      PLUMB_ASSIGN_OR_RETURN(CsvField field, Field());
      record.push_back(std::move(field));
      if (AtEnd()) break;
      if (Peek() == ',') {
        Take();
        continue;
      }
      PLUMB_RETURN_IF_ERROR(LineEnd());
      break;
    }
    if (record.size() == 1 && record[0].text.empty() && !quoted_) {
      return RowError(where_, start, "empty line in a csv file; remove it");
    }
    return record;
  }

 private:
  char Peek() const { return bytes_[offset_]; }

  char Take() {
    const char c = bytes_[offset_++];
    ++here_.column;
    if (c == '\n') here_ = {here_.line + 1, 1};
    return c;
  }

  absl::StatusOr<CsvField> Field() {
    CsvField field;
    field.location = here_;
    quoted_ = !AtEnd() && Peek() == '"';
    if (quoted_) {
      PLUMB_RETURN_IF_ERROR(Quoted(&field));
      return field;
    }
    while (!AtEnd() && Peek() != ',' && Peek() != '\n' && Peek() != '\r') {
      if (Peek() == '"') {
        return RowError(where_, here_,
                        "quote inside an unquoted field; quote the whole field and double the "
                        "quotes inside it");
      }
      field.text.push_back(Take());
    }
    return field;
  }

  absl::Status Quoted(CsvField* field) {
    Take();
    while (true) {
      if (AtEnd()) return RowError(where_, field->location, "this quoted field never ends");
      const char c = Take();
      if (c != '"') {
        field->text.push_back(c);
        continue;
      }
      if (AtEnd() || Peek() != '"') break;
      field->text.push_back(Take());
    }
    if (!AtEnd() && Peek() != ',' && Peek() != '\n' && Peek() != '\r') {
      return RowError(where_, here_, "text after the closing quote of a field");
    }
    return absl::OkStatus();
  }

  absl::Status LineEnd() {
    const Location at = here_;
    if (Take() == '\n') return absl::OkStatus();
    if (AtEnd() || Take() != '\n') {
      return RowError(where_, at, "carriage return without line feed; use LF or CRLF line ends");
    }
    return absl::OkStatus();
  }

  absl::string_view bytes_;
  const std::string& where_;
  size_t offset_ = 0;
  Location here_;
  bool quoted_ = false;  // the last field was quoted
};

}  // namespace

absl::StatusOr<std::vector<CsvRecord>> ReadCsv(absl::string_view bytes, const std::string& where) {
  Reader reader(bytes, where);
  std::vector<CsvRecord> records;
  while (!reader.AtEnd()) {
    PLUMB_ASSIGN_OR_RETURN(CsvRecord record, reader.Record());
    if (!records.empty() && record.size() != records[0].size()) {
      return RowError(where, record[0].location,
                      absl::StrCat("this row has ", record.size(), " fields, the header has ",
                                   records[0].size()));
    }
    records.push_back(std::move(record));
  }
  return records;
}

}  // namespace plumbline::prompts_internal
