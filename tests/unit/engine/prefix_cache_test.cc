#include "services/engine/cpu/prefix_cache.h"

#include "gtest/gtest.h"

namespace plumbline {
namespace {

using Cache = PrefixCache<float>;

// An entry of `layers` blocks, 4 bytes a value: 4 * (10 * (layers + 1) + 2 * 5 * layers) bytes.
Cache::Entry Entry(int layers, float mark = 0) {
  Cache::Entry entry;
  for (int i = 0; i <= layers; ++i) entry.hidden.emplace_back(10, mark);
  for (int i = 0; i < layers; ++i) {
    entry.keys.emplace_back(5, mark);
    entry.values.emplace_back(5, mark);
  }
  return entry;
}

TEST(PrefixCacheTest, KeepsTheDeepestStatesOfAKey) {
  Cache cache(10000);
  cache.Put("a", Entry(2, 1));
  EXPECT_EQ(cache.Layers("a"), 2);
  cache.Put("a", Entry(1, 2));
  EXPECT_EQ(cache.Use("a")->hidden[0][0], 1);
  cache.Put("a", Entry(3, 3));
  EXPECT_EQ(cache.Layers("a"), 3);
  EXPECT_EQ(cache.bytes(), Entry(3).bytes());
  EXPECT_EQ(cache.Layers("b"), 0);
  EXPECT_EQ(cache.Use("b"), nullptr);
}

TEST(PrefixCacheTest, DropsTheLeastRecentlyUsedAndStaysInItsBound) {
  const int64_t one = Entry(2).bytes();
  Cache cache(2 * one);
  cache.Put("a", Entry(2));
  cache.Put("b", Entry(2));
  cache.Use("a");
  cache.Put("c", Entry(2));
  EXPECT_EQ(cache.Layers("a"), 2);
  EXPECT_EQ(cache.Layers("b"), 0);
  EXPECT_EQ(cache.Layers("c"), 2);
  EXPECT_EQ(cache.bytes(), 2 * one);
}

TEST(PrefixCacheTest, AnEntryLargerThanTheBoundIsNotKeptAndDropsNothing) {
  Cache cache(Entry(2).bytes());
  cache.Put("a", Entry(2));
  cache.Put("b", Entry(3));
  EXPECT_EQ(cache.Layers("a"), 2);
  EXPECT_EQ(cache.Layers("b"), 0);
  EXPECT_FALSE(Cache(0).enabled());
}

}  // namespace
}  // namespace plumbline
