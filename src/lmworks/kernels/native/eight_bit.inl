// A step of AdamW whose moments are stored in 8 bits, in one pass over memory: a block's moments are decoded, updated with
// its weights and encoded again while they are in registers and the first cache.
#include <algorithm>

#include "adamw.inl"
#include "kernel_table.hpp"
#include "parallel.hpp"
#include "simd.hpp"

namespace lmworks::ISA {
namespace {

constexpr Size MOMENT_BLOCKS_PER_ITEM = 128;
constexpr int DECADES = 7;  // below 1

// Levels above zero (train/eight_bit.py). Decade i, from 0 to 6, is [10^(i - 7), 10^(i - 6)] in p = 2^(i + extra_bits) equal
// parts; their middles are the levels with the indices p ... 2 p - 1. With extra_bits = 0 decade 2 has four parts of
// 0.225e-4, and its levels 4 ... 7 are 0.2125e-4, 0.4375e-4, 0.6625e-4 and 0.8875e-4. In general
//     level(index) = part (index - 8/9 p + 1/2)      index(x) = x / part + 8/9 p, rounded down      part = 0.9 10^(i - 6) / p
// Below decade 0 lies one more level, ``least``, for which index(x) is 2^extra_bits - 1; index(1) is 2^(7 + extra_bits).
struct LevelMap {
    float part[DECADES + 1];   // the last one: of ``least``, whose index has an exponent below the decades'
    float parts_per_unit[DECADES + 1];
    float begin[DECADES + 1];  // of a decade
    int extra_bits;
};

constexpr LevelMap level_map(int extra_bits, double least) {
    LevelMap map{{}, {}, {}, extra_bits};
    double unit = 1e-6, p = 1 << extra_bits;
    for (int i = 0; i < DECADES; ++i) {
        const double part = 0.9 * unit / p;
        map.part[i] = static_cast<float>(part), map.parts_per_unit[i] = static_cast<float>(1 / part);
        map.begin[i] = static_cast<float>(unit / 10);
        unit *= 10, p *= 2;
    }
    map.part[DECADES] = static_cast<float>(least / (1 - 8.0 / 9 + 0.5));
    map.begin[DECADES] = 2.0f;  // above every x
    return map;
}

// The first moment has levels of both signs and zero, the second none below 10^-7.
constexpr LevelMap SIGNED = level_map(0, 0.0), UNSIGNED = level_map(1, 0.5e-7);
constexpr float ZERO_CODE = 127.0f;  // of the signed levels

inline Vec level_of(const LevelMap& map, Vec index) {
    const VecI32 bits = bit_cast<VecI32>(index), i = (bits >> 23) - (127 + map.extra_bits);
    const Vec p = bit_cast<Vec>(bits & ~0x7FFFFF), level = lookup(map.part, i) * (index - p * (8.0f / 9) + 0.5f);
    return i == DECADES ? broadcast(1.0f) : level;
}

// The index of the level whose interval contains x, from 0 to 1.
inline VecI32 index_of(const LevelMap& map, Vec x) {
    // log10 by the bits of a float, which are linear within a power of two: up to 0.03 too low
    const Vec decade = __builtin_convertvector(bit_cast<VecI32>(x), Vec) * (0.30103f / (1 << 23)) + (7 - 127 * 0.30103f);
    const VecI32 guess = __builtin_convertvector(min(max(decade, Vec{}), broadcast(DECADES - 1)), VecI32);
    const VecI32 i = guess - (x >= lookup(map.begin, guess + 1));
    const Vec p = bit_cast<Vec>((i + (127 + map.extra_bits)) << 23);
    const float rounding = 1.0f / 4096;  // more than float32's, so that index(1) is never the one below
    return __builtin_convertvector(x * lookup(map.parts_per_unit, i) + (p * (8.0f / 9) + rounding), VecI32);
}

inline Vec magnitude(Vec x) { return bit_cast<Vec>(bit_cast<VecI32>(x) & 0x7FFFFFFF); }
inline VecI32 sign_bit(Vec x) { return bit_cast<VecI32>(x) & ~0x7FFFFFFF; }

template <bool HAS_SIGN>
inline void decode(const EightBitMoment& moment, Size block, Size begin, Size count, float* values) {
    const float scale = moment.scales[block];
    std::uint8_t padded[MOMENT_BLOCK] = {};
    const std::uint8_t* codes = moment.codes + begin;
    if (count < MOMENT_BLOCK) codes = static_cast<std::uint8_t*>(std::memcpy(padded, codes, count));
    for (Size i = 0; i < MOMENT_BLOCK; ++i) values[i] = codes[i];
    for (Size i = 0; i < MOMENT_BLOCK; i += W) {
        const Vec code = load(values + i);
        if constexpr (HAS_SIGN) {
            const Vec x = code - ZERO_CODE, level = x == 0.0f ? x : level_of(SIGNED, magnitude(x));
            store(values + i, bit_cast<Vec>(bit_cast<VecI32>(level * scale) ^ sign_bit(x)));
        } else store(values + i, level_of(UNSIGNED, code + 1.0f) * scale);
    }
    std::fill(values + count, values + MOMENT_BLOCK, 0.0f);
}

// The scale carries the sign of the largest number, so that its fraction is 1, which is a level, and never -1. Numbers from
// ``count`` on are zeros.
template <bool HAS_SIGN>
inline void encode(const EightBitMoment& moment, Size block, Size begin, Size count, const float* values) {
    Vec highest = load(values), lowest = highest;
    for (Size i = W; i < MOMENT_BLOCK; i += W) {
        const Vec x = load(values + i);
        highest = max(highest, x), lowest = min(lowest, x);
    }
    const float high = reduce_max(highest), low = -reduce_max(-lowest), scale = high >= -low ? high : low;
    const float factor = scale == 0.0f ? 1.0f : 1.0f / scale;
    moment.scales[block] = scale;
    std::int32_t numbers[MOMENT_BLOCK];
    for (Size i = 0; i < MOMENT_BLOCK; i += W) {
        const Vec x = load(values + i) * factor;
        VecI32 code;
        if constexpr (HAS_SIGN) {
            const VecI32 index = index_of(SIGNED, magnitude(x)), negative = sign_bit(x) >> 31;
            code = (index ^ negative) - negative + static_cast<int>(ZERO_CODE);
            code = code < 0 ? VecI32{} : code;  // -1 is no level
        } else code = index_of(UNSIGNED, x) - 1;
        std::memcpy(numbers + i, &code, sizeof code);
    }
    std::uint8_t codes[MOMENT_BLOCK];
    for (Size i = 0; i < MOMENT_BLOCK; ++i) codes[i] = static_cast<std::uint8_t>(numbers[i]);
    if (count == MOMENT_BLOCK) std::memcpy(moment.codes + begin, codes, MOMENT_BLOCK);
    else std::memcpy(moment.codes + begin, codes, count);
}

void adamw_8bit(float* weights, const float* gradient, const EightBitMoment& first, const EightBitMoment& second,
                Size count, const AdamWStep& step) {
    const Size blocks = (count + MOMENT_BLOCK - 1) / MOMENT_BLOCK;
    parallel_for((blocks + MOMENT_BLOCKS_PER_ITEM - 1) / MOMENT_BLOCKS_PER_ITEM, [&](Size item) {
        float first_values[MOMENT_BLOCK] = {}, second_values[MOMENT_BLOCK] = {};
        const Size end = std::min(blocks, (item + 1) * MOMENT_BLOCKS_PER_ITEM);
        for (Size block = item * MOMENT_BLOCKS_PER_ITEM; block < end; ++block) {
            const Size begin = block * MOMENT_BLOCK, size = std::min(MOMENT_BLOCK, count - begin);
            decode<true>(first, block, begin, size, first_values), decode<false>(second, block, begin, size, second_values);
            adamw_update(weights + begin, gradient + begin, first_values, second_values, size, step);
            encode<true>(first, block, begin, size, first_values), encode<false>(second, block, begin, size, second_values);
        }
    });
}

}  // namespace
}  // namespace lmworks::ISA
