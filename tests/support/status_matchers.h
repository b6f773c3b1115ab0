// IsOk(), StatusIs(code, message matcher) and ASSERT_OK_AND_ASSIGN for absl::Status (the Abseil of
// Debian 12 has none).
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace plumbline::testing {

inline const absl::Status& GetStatus(const absl::Status& status) { return status; }
template <typename T>
const absl::Status& GetStatus(const absl::StatusOr<T>& status_or) {
  return status_or.status();
}

MATCHER(IsOk, negation ? "is not OK" : "is OK") {
  *result_listener << "whose status is " << GetStatus(arg).ToString();
  return GetStatus(arg).ok();
}

MATCHER_P2(StatusIs, code, message, "has the given code and a matching message") {
  *result_listener << "whose status is " << GetStatus(arg).ToString();
  return GetStatus(arg).code() == code && ::testing::SafeMatcherCast<std::string>(message).Matches(
                                              std::string(GetStatus(arg).message()));
}

MATCHER_P(StatusIs, code, "has the given code") {
  *result_listener << "whose status is " << GetStatus(arg).ToString();
  return GetStatus(arg).code() == code;
}

}  // namespace plumbline::testing

#define ASSERT_OK(expr) ASSERT_THAT((expr), ::plumbline::testing::IsOk())
#define EXPECT_OK(expr) EXPECT_THAT((expr), ::plumbline::testing::IsOk())

#define PLUMB_TEST_CONCAT_INNER(a, b) a##b
#define PLUMB_TEST_CONCAT(a, b) PLUMB_TEST_CONCAT_INNER(a, b)
#define ASSERT_OK_AND_ASSIGN(lhs, expr) \
  ASSERT_OK_AND_ASSIGN_IMPL(PLUMB_TEST_CONCAT(plumb_test_status_or_, __LINE__), lhs, expr)
#define ASSERT_OK_AND_ASSIGN_IMPL(tmp, lhs, expr) \
  auto tmp = (expr);                              \
  ASSERT_OK(tmp);                                 \
  lhs = std::move(tmp).value()
