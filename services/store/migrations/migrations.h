// The numbered .sql files of this folder, embedded at build time. Number N turns schema N-1 into N.
// A published file never changes.
#pragma once

#include <string>
#include <vector>

namespace plumbline {

struct Migration {
  std::string name;  // "0001_initial.sql"
  std::string sql;
};

const std::vector<Migration>& Migrations();

}  // namespace plumbline
