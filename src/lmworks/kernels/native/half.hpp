// Single numbers of 16 bits.
#pragma once

#include <cstdint>
#include <cstring>

namespace lmworks {

inline float bits_to_float(std::uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline float load_float(const std::uint8_t* bytes) {
    float value;
    std::memcpy(&value, bytes, sizeof value);
    return value;
}

inline float bf16_to_float(const std::uint8_t* bytes) {
    return bits_to_float(static_cast<std::uint32_t>(bytes[0]) << 16 | static_cast<std::uint32_t>(bytes[1]) << 24);
}

inline float half_to_float(std::uint32_t half) {
    const std::uint32_t sign = (half & 0x8000u) << 16, exponent = half >> 10 & 31u, mantissa = half & 0x3FFu;
    if (exponent == 0) {  // subnormal
        const float value = static_cast<float>(mantissa) * 5.9604644775390625e-8f;
        return sign ? -value : value;
    }
    return bits_to_float(sign | (exponent == 31 ? 255u : exponent + 112u) << 23 | mantissa << 13);
}

inline float half_to_float(const std::uint8_t* bytes) {
    return half_to_float(static_cast<std::uint32_t>(bytes[0]) | static_cast<std::uint32_t>(bytes[1]) << 8);
}

// To the nearest float16, ties to even; what is too large becomes infinite.
inline std::uint16_t float_to_half(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    const std::uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7FFFFFFFu;
    if (magnitude > 0x7F800000u) return static_cast<std::uint16_t>(sign | 0x7E00u);  // NaN
    if (magnitude >= 0x477FF000u) return static_cast<std::uint16_t>(sign | 0x7C00u);
    if (magnitude < 0x38800000u) {  // subnormal: the sum has the right bits at its end
        const float shifted = bits_to_float(magnitude) + 0.5f;
        std::uint32_t sum;
        std::memcpy(&sum, &shifted, sizeof sum);
        return static_cast<std::uint16_t>(sign | (sum - 0x3F000000u));
    }
    const std::uint32_t rounded = magnitude + 0xFFFu + (magnitude >> 13 & 1u);
    return static_cast<std::uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

}  // namespace lmworks
