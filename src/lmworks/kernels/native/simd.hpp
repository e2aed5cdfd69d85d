// Vectors of floats as wide as the instruction set that this file is compiled for, by the vector extension of GCC and
// Clang, and the functions that it lacks: exp, tanh, the normal distribution. All widths share the code; intrinsics
// only where an instruction set has one for bfloat16.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

#include "kernel_table.hpp"

namespace lmworks::ISA {

#if defined(__AVX512F__)
constexpr int W = 16;  // floats of a vector
#elif defined(__AVX2__)
constexpr int W = 8;
#else
constexpr int W = 4;
#endif

using Vec = float __attribute__((vector_size(W * 4)));
using VecI32 = std::int32_t __attribute__((vector_size(W * 4)));
using VecU32 = std::uint32_t __attribute__((vector_size(W * 4)));
using VecU16 = std::uint16_t __attribute__((vector_size(W * 2)));

inline Vec broadcast(float x) { return x - Vec{}; }

template <class To, class From>
inline To bit_cast(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

// bfloat16 is the upper half of a float32. The conversion rounds to nearest, ties to even; NaN stays NaN. The instruction
// that some sets have for it would lose numbers below 2^-126.
inline Vec bf16_to_f32(VecU16 upper) { return bit_cast<Vec>(__builtin_convertvector(upper, VecU32) << 16); }
inline VecU16 f32_to_bf16(Vec v) {
    const VecU32 bits = bit_cast<VecU32>(v);
    const VecU32 rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
    return __builtin_convertvector(v == v ? rounded : (bits >> 16 | 0x40u), VecU16);
}

// Loads convert to float32 and stores convert from it: kernels compute in float32 for both storage types.
inline Vec load(const float* p) {
    Vec v;
    std::memcpy(&v, p, sizeof v);
    return v;
}
inline Vec load(const Bf16* p) {
    VecU16 upper;
    std::memcpy(&upper, p, sizeof upper);
    return bf16_to_f32(upper);
}
inline void store(float* p, Vec v) { std::memcpy(p, &v, sizeof v); }
inline void store(Bf16* p, Vec v) {
    const VecU16 upper = f32_to_bf16(v);
    std::memcpy(p, &upper, sizeof upper);
}

// Two bfloat16 numbers, the first in the lower half: neighbours along a sum, so that one instruction adds both products.
enum Bf16Pair : std::uint32_t {};

#if defined(__AVX512BF16__)
constexpr bool HAS_BF16_DOT = true;
#else
constexpr bool HAS_BF16_DOT = false;
#endif

inline VecU32 load(const Bf16Pair* p) {
    VecU32 v;
    std::memcpy(&v, p, sizeof v);
    return v;
}
inline void store(Bf16Pair* p, VecU32 v) { std::memcpy(p, &v, sizeof v); }

// Pairs of the elements of two vectors.
inline VecU32 bf16_pairs(Vec first, Vec second) {
    return __builtin_convertvector(f32_to_bf16(first), VecU32) | __builtin_convertvector(f32_to_bf16(second), VecU32) << 16;
}

// One element, which may lie in memory as numbers of another type.
template <class E>
inline E load_element(const E* p) {
    E element;
    std::memcpy(&element, p, sizeof element);
    return element;
}

// sum + a * b in each lane, where a is the same in all lanes; of pairs, both products.
inline Vec add_product(Vec sum, float a, Vec b) { return sum + a * b; }
inline Vec add_product(Vec sum, Bf16Pair a, VecU32 b) {
    const VecU32 all = VecU32{} + static_cast<std::uint32_t>(a);
#if defined(__AVX512BF16__)
    return bit_cast<Vec>(_mm512_dpbf16_ps(bit_cast<__m512>(sum), bit_cast<__m512bh>(all), bit_cast<__m512bh>(b)));
#else
    return sum + bit_cast<Vec>(all << 16) * bit_cast<Vec>(b << 16) +
           bit_cast<Vec>(all & 0xFFFF0000u) * bit_cast<Vec>(b & 0xFFFF0000u);
#endif
}

// 0, 1, 2 ...
inline VecI32 lane_indices() {
    VecI32 lane{};
    for (int i = 0; i < W; ++i) lane[i] = i;
    return lane;
}

// The first n (< W) elements; the other lanes are ``fill``.
inline Vec load_partial(const float* p, int n, float fill = 0.0f) {
    Vec v = broadcast(fill);
    std::memcpy(&v, p, n * sizeof(float));
    return v;
}
inline Vec load_partial(const Bf16* p, int n, float fill = 0.0f) {
    VecU16 upper{};
    std::memcpy(&upper, p, n * sizeof(Bf16));
    return lane_indices() < n ? bf16_to_f32(upper) : broadcast(fill);
}
inline void store_partial(float* p, Vec v, int n) { std::memcpy(p, &v, n * sizeof(float)); }
inline void store_partial(Bf16* p, Vec v, int n) {
    const VecU16 upper = f32_to_bf16(v);
    std::memcpy(p, &upper, n * sizeof(Bf16));
}

// table[index & 7] of each lane: one instruction where a vector holds the table.
inline Vec lookup(const float (&table)[8], VecI32 index) {
    Vec values;
    if constexpr (W >= 8) {
        for (int i = 0; i < W; i += 8) std::memcpy(reinterpret_cast<float*>(&values) + i, table, sizeof table);
        return __builtin_shuffle(values, index & 7);
    }
    for (int i = 0; i < W; ++i) values[i] = table[index[i] & 7];
    return values;
}

// To the nearest integer, ties to even; |x| < 2^22.
inline Vec round(Vec x) {
    const Vec shift = broadcast(12582912.0f);  // 1.5 * 2^23: a sum of this size has no bits for a fraction
    return (x + shift) - shift;
}

inline Vec max(Vec a, Vec b) { return a > b ? a : b; }
inline Vec min(Vec a, Vec b) { return a < b ? a : b; }

// Reduces all lanes to one number, pairwise: log2 W steps, always in the same order.
template <class Combine>
inline float reduce(Vec v, Combine combine) {
    for (int step = W / 2; step > 0; step /= 2) v = combine(v, __builtin_shuffle(v, lane_indices() ^ step));
    return v[0];
}
inline float reduce_sum(Vec v) {
    return reduce(v, [](Vec a, Vec b) { return a + b; });
}
inline float reduce_max(Vec v) { return reduce(v, max); }

// e^x = 2^n e^r with a polynomial for e^r (coefficients of Cephes); the error is below 2 units in the last place.
inline Vec exp(Vec x) {
    x = min(max(x, broadcast(-87.3f)), broadcast(88.3f));
    const Vec n = round(x * 1.44269504f);
    const Vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    Vec y = broadcast(1.9875691500e-4f);
    y = y * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * r * r + r + 1.0f;
    const VecI32 power = (__builtin_convertvector(n, VecI32) + 127) << 23;
    Vec scale;
    std::memcpy(&scale, &power, sizeof scale);
    return y * scale;
}

inline Vec sigmoid(Vec x) { return 1.0f / (1.0f + exp(-x)); }
inline Vec tanh(Vec x) { return 1.0f - 2.0f / (exp(x + x) + 1.0f); }

// The cumulative distribution function of the normal distribution, (1 + erf(x / sqrt(2))) / 2, by Abramowitz & Stegun
// 7.1.26 (largest error 7.5e-8). Writes e^(-x^2 / 2) to ``exponential``.
inline Vec normal_cdf(Vec x, Vec& exponential) {
    const Vec magnitude = (x < 0.0f ? -x : x);
    exponential = exp(x * x * -0.5f);
    const Vec t = 1.0f / (1.0f + magnitude * (0.3275911f * 0.70710678f));
    Vec y = broadcast(1.061405429f);
    y = y * t - 1.453152027f;
    y = y * t + 1.421413741f;
    y = y * t - 0.284496736f;
    y = y * t + 0.254829592f;
    const Vec tail = 0.5f * y * t * exponential;
    return x < 0.0f ? tail : 1.0f - tail;
}

// Calls body(begin, count) for each vector of [0, n): count is W, and smaller for the last if W does not divide n.
template <class Body>
inline void for_each_vector(std::ptrdiff_t n, Body body) {
    std::ptrdiff_t i = 0;
    for (; i + W <= n; i += W) body(i, W);
    if (i < n) body(i, static_cast<int>(n - i));
}

// n <= W elements.
template <class T>
inline Vec load_n(const T* p, int n) { return n == W ? load(p) : load_partial(p, n); }
template <class T>
inline void store_n(T* p, Vec v, int n) { n == W ? store(p, v) : store_partial(p, v, n); }

}  // namespace lmworks::ISA
