// Vectors of floats as wide as the instruction set this file is compiled for, by GCC's and Clang's vector extension;
// and the functions that neither has: exp, tanh, the error function. No intrinsics, so every width is the same code.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "table.hpp"

namespace lmworks::ISA {

#if defined(__AVX512F__)
constexpr int W = 16;
#elif defined(__AVX2__)
constexpr int W = 8;
#else
constexpr int W = 4;
#endif

using Vec = float __attribute__((vector_size(W * 4)));
using Ints = std::int32_t __attribute__((vector_size(W * 4)));
using Bits = std::uint32_t __attribute__((vector_size(W * 4)));
using Halves = std::uint16_t __attribute__((vector_size(W * 2)));

inline Vec all(float x) { return x - Vec{}; }

template <class To, class From>
inline To as(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

// bfloat16 is the upper half of a float32; what does not fit is rounded to the nearest, to the even one of two.
inline Vec widen(Halves halves) { return as<Vec>(__builtin_convertvector(halves, Bits) << 16); }
inline Halves narrow(Vec v) {
    const Bits bits = as<Bits>(v);
    const Bits rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
    return __builtin_convertvector(v == v ? rounded : (bits >> 16 | 0x40u), Halves);  // what is no number stays none
}

// Loads widen to float32, stores narrow: kernels compute in float32 whatever the storage.
inline Vec load(const float* p) {
    Vec v;
    std::memcpy(&v, p, sizeof v);
    return v;
}
inline Vec load(const Bf16* p) {
    Halves halves;
    std::memcpy(&halves, p, sizeof halves);
    return widen(halves);
}
inline void store(float* p, Vec v) { std::memcpy(p, &v, sizeof v); }
inline void store(Bf16* p, Vec v) {
    const Halves halves = narrow(v);
    std::memcpy(p, &halves, sizeof halves);
}

// 0, 1, 2 ...
inline Ints lanes() {
    Ints lane{};
    for (int i = 0; i < W; ++i) lane[i] = i;
    return lane;
}

// The first n (< W) numbers; the others are ``rest``.
inline Vec load_some(const float* p, int n, float rest = 0.0f) {
    Vec v = all(rest);
    std::memcpy(&v, p, n * sizeof(float));
    return v;
}
inline Vec load_some(const Bf16* p, int n, float rest = 0.0f) {
    Halves halves{};
    std::memcpy(&halves, p, n * sizeof(Bf16));
    return lanes() < n ? widen(halves) : all(rest);
}
inline void store_some(float* p, Vec v, int n) { std::memcpy(p, &v, n * sizeof(float)); }
inline void store_some(Bf16* p, Vec v, int n) {
    const Halves halves = narrow(v);
    std::memcpy(p, &halves, n * sizeof(Bf16));
}

inline Vec max(Vec a, Vec b) { return a > b ? a : b; }
inline Vec min(Vec a, Vec b) { return a < b ? a : b; }

// All lanes folded into one by halves: an order of its own, and no chain of W steps.
template <class Fold>
inline float folded(Vec v, Fold fold) {
    for (int step = W / 2; step > 0; step /= 2) v = fold(v, __builtin_shuffle(v, lanes() ^ step));
    return v[0];
}
inline float sum(Vec v) {
    return folded(v, [](Vec a, Vec b) { return a + b; });
}
inline float largest(Vec v) { return folded(v, max); }

// e^x: 2^n times a polynomial of the rest (Cephes' coefficients); within 2 units in the last place.
inline Vec exp(Vec x) {
    x = min(max(x, all(-87.3f)), all(88.3f));
    const Vec shift = all(12582912.0f);  // 1.5 * 2^23: adding it rounds to a whole number
    const Vec n = (x * 1.44269504f + shift) - shift;
    const Vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    Vec y = all(1.9875691500e-4f);
    y = y * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * r * r + r + 1.0f;
    const Ints power = (__builtin_convertvector(n, Ints) + 127) << 23;
    Vec scale;
    std::memcpy(&scale, &power, sizeof scale);
    return y * scale;
}

inline Vec sigmoid(Vec x) { return 1.0f / (1.0f + exp(-x)); }
inline Vec tanh(Vec x) { return 1.0f - 2.0f / (exp(x + x) + 1.0f); }

// The distribution function of the normal distribution: (1 + erf(x / sqrt(2))) / 2, by Abramowitz & Stegun 7.1.26
// (largest error 7.5e-8). ``bell`` receives e^(-x^2 / 2).
inline Vec normal(Vec x, Vec& bell) {
    const Vec size = (x < 0.0f ? -x : x);
    bell = exp(x * x * -0.5f);
    const Vec t = 1.0f / (1.0f + size * (0.3275911f * 0.70710678f));
    Vec y = all(1.061405429f);
    y = y * t - 1.453152027f;
    y = y * t + 1.421413741f;
    y = y * t - 0.284496736f;
    y = y * t + 0.254829592f;
    const Vec tail = 0.5f * y * t * bell;
    return x < 0.0f ? tail : 1.0f - tail;
}

// Calls body(place, count) for vectors of [0, n): count is W, and less for the last where W does not divide n.
template <class Body>
inline void by_vector(std::ptrdiff_t n, Body body) {
    std::ptrdiff_t i = 0;
    for (; i + W <= n; i += W) body(i, W);
    if (i < n) body(i, static_cast<int>(n - i));
}
template <class T>
inline Vec load_up_to(const T* p, int n) { return n == W ? load(p) : load_some(p, n); }
template <class T>
inline void store_up_to(T* p, Vec v, int n) { n == W ? store(p, v) : store_some(p, v, n); }

}  // namespace lmworks::ISA
