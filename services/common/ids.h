// Strong integer ids: a layer index cannot be passed where a head index is meant.
//
//   LayerIndex layer{7};
//   layer.value();        // 7
#pragma once

#include <compare>
#include <cstdint>

namespace plumbline {

template <typename Tag>
class StrongIndex {
 public:
  constexpr StrongIndex() = default;
  constexpr explicit StrongIndex(int32_t value) : value_(value) {}
  constexpr int32_t value() const { return value_; }
  friend constexpr auto operator<=>(StrongIndex, StrongIndex) = default;

 private:
  int32_t value_ = 0;
};

using LayerIndex = StrongIndex<struct LayerIndexTag>;      // transformer block, 0-based
using KvHeadIndex = StrongIndex<struct KvHeadIndexTag>;    // key/value head within a layer, 0-based
using ChannelIndex = StrongIndex<struct ChannelIndexTag>;  // flat: kv_head * head_dim + channel

}  // namespace plumbline
