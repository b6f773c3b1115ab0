#include "services/engine/cuda/recent_map.h"

#include <memory>
#include <string>

#include "gtest/gtest.h"

namespace plumbline {
namespace {

TEST(RecentMapTest, TheOneUsedLongestAgoMakesRoom) {
  RecentMap<int, std::string> map(2);
  map.Put(1, "one");
  map.Put(2, "two");
  ASSERT_NE(map.Use(1), nullptr);
  map.Put(3, "three");
  EXPECT_EQ(map.Use(2), nullptr);
  EXPECT_EQ(*map.Use(1), "one");
  EXPECT_EQ(*map.Use(3), "three");
  EXPECT_EQ(map.size(), 2u);
}

TEST(RecentMapTest, AKeyHasItsNewestValueAndOneSlot) {
  RecentMap<int, std::string> map(2);
  map.Put(1, "one");
  map.Put(2, "two");
  map.Put(1, "uno");
  EXPECT_EQ(*map.Use(1), "uno");
  EXPECT_EQ(*map.Use(2), "two");
}

TEST(RecentMapTest, ValuesGoWhenTheyMakeRoomAndWhenAllIsCleared) {
  const auto owned = std::make_shared<int>(7);
  RecentMap<int, std::shared_ptr<int>> map(2);
  map.Put(1, owned);
  map.Put(2, owned);
  EXPECT_EQ(owned.use_count(), 3);
  map.MakeRoom();
  EXPECT_EQ(owned.use_count(), 2);
  EXPECT_EQ(map.Use(1), nullptr);
  map.MakeRoom();
  EXPECT_EQ(owned.use_count(), 2);
  map.Clear();
  EXPECT_EQ(owned.use_count(), 1);
  EXPECT_EQ(map.size(), 0u);
}

}  // namespace
}  // namespace plumbline
