// Random numbers that are the same on every platform: integer arithmetic, + - * /, square roots and
// a logarithm of our own; nothing that a C library is free to round its own way.
//
//   CounterRng rng(/*seed=*/7);
//   double g = rng.GammaHalf(3);   // Gamma(3 + 1/2, 1)
//
// Not thread safe; one instance a stream. Not for secrets.
#pragma once

#include <cstdint>

namespace plumbline {

// SplitMix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", 2014): value i
// is a mixing function of seed + i * odd constant, so a stream is a pure function of (seed, i).
class CounterRng {
 public:
  explicit CounterRng(uint64_t seed) : state_(seed) {}

  uint64_t Next();
  // In [0, 1), a multiple of 2^-53.
  double Uniform() { return static_cast<double>(Next() >> 11) * 0x1p-53; }
  // In 0..bound-1, without bias. Precondition: bound > 0.
  uint64_t Below(uint64_t bound);
  // Successes of `trials` independent draws. Cost: one draw a trial.
  int64_t Binomial(int64_t trials, double probability);
  // Marsaglia's polar method.
  double Normal();
  // Gamma with shape count + 1/2 and scale 1 (Marsaglia and Tsang 2000; shape 1/2 is half a squared
  // normal). Precondition: count >= 0.
  double GammaHalf(int64_t count);

 private:
  uint64_t state_;
  double spare_normal_ = 0;
  bool has_spare_ = false;
};

// Natural logarithm by range reduction and the atanh series; within 2 ulp, bit-equal everywhere.
// Precondition: x is positive, finite and normal.
double PortableLog(double x);

// e^x by range reduction and the power series; within 2 ulp, bit-equal everywhere. 0 below -700.
// Precondition: x <= 0, not NaN.
double PortableExp(double x);

}  // namespace plumbline
