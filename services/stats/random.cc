#include "services/stats/random.h"

#include <array>
#include <cmath>
#include <numbers>

namespace plumbline {

double PortableLog(double x) {
  int exponent = 0;
  double mantissa = std::frexp(x, &exponent);  // exact; in [1/2, 1)
  if (mantissa < std::numbers::sqrt2 / 2) {
    mantissa *= 2;
    --exponent;
  }
  const double s = (mantissa - 1) / (mantissa + 1);
  const double s2 = s * s;
  double series = 0;  // s^2 <= 0.0295, so twelve terms leave less than 1e-19
  for (int k = 25; k >= 3; k -= 2) series = s2 * (1.0 / k + series);
  const double log_mantissa = 2 * s + 2 * s * series;
  // ln 2 in two parts, the first with trailing zeros, keeps exponent * ln 2 exact to the last bit.
  return exponent * 0x1.62e42fee00000p-1 + (exponent * 0x1.a39ef35793c76p-33 + log_mantissa);
}

double PortableExp(double x) {
  if (x < -700) return 0;
  const double k = std::floor(x * std::numbers::log2e + 0.5);
  // ln 2 in two parts: k times the first is exact.
  const double r = (x - k * 0x1.62e42fee00000p-1) - k * 0x1.a39ef35793c76p-33;
  static constexpr auto kInverseFactorials = [] {
    std::array<double, 15> inverse{1};
    for (size_t n = 1; n < inverse.size(); ++n) {
      inverse[n] = inverse[n - 1] / static_cast<double>(n);
    }
    return inverse;
  }();
  double series = 0;  // |r| <= 0.35, so these terms leave less than 1e-18
  for (int n = 14; n >= 0; --n) series = kInverseFactorials[n] + r * series;
  return std::ldexp(series, static_cast<int>(k));
}

uint64_t CounterRng::Next() {
  state_ += 0x9e3779b97f4a7c15u;
  uint64_t z = state_;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

uint64_t CounterRng::Below(uint64_t bound) {
  const uint64_t reject = (0 - bound) % bound;  // 2^64 mod bound
  for (;;) {
    const uint64_t value = Next();
    if (value >= reject) return value % bound;
  }
}

int64_t CounterRng::Binomial(int64_t trials, double probability) {
  int64_t successes = 0;
  for (int64_t i = 0; i < trials; ++i) successes += Uniform() < probability ? 1 : 0;
  return successes;
}

double CounterRng::Normal() {
  if (has_spare_) {
    has_spare_ = false;
    return spare_normal_;
  }
  for (;;) {
    const double u = 2 * Uniform() - 1;
    const double v = 2 * Uniform() - 1;
    const double s = u * u + v * v;
    if (s >= 1 || s == 0) continue;
    const double factor = std::sqrt(-2 * PortableLog(s) / s);
    spare_normal_ = v * factor;
    has_spare_ = true;
    return u * factor;
  }
}

double CounterRng::GammaHalf(int64_t count) {
  if (count == 0) {
    const double x = Normal();
    return 0.5 * x * x;
  }
  const double d = static_cast<double>(count) + 0.5 - 1.0 / 3;
  const double c = 1 / std::sqrt(9 * d);
  for (;;) {
    const double x = Normal();
    const double t = 1 + c * x;
    if (t <= 0) continue;
    const double v = t * t * t;
    const double u = 1 - Uniform();  // in (0, 1]
    const double x2 = x * x;
    if (u < 1 - 0.0331 * x2 * x2) return d * v;
    if (PortableLog(u) < 0.5 * x2 + d * (1 - v + PortableLog(v))) return d * v;
  }
}

}  // namespace plumbline
