// A step of AdamW whose moments are stored in 8 bits, in one pass over memory: a block's moments are decoded, updated with
// its weights and encoded again while they are in registers and the first cache.
#include <algorithm>
#include <cmath>

#include "kernel_table.hpp"
#include "parallel.hpp"
#include "simd.hpp"

namespace lmworks::ISA {
namespace {

constexpr Size TASK_MOMENT_BLOCKS = 128;

// The bits of float16 of numbers from -1 to 1, rounded to nearest, ties to even.
inline VecU32 half_bits(Vec x) {
    const VecU32 bits = bit_cast<VecU32>(x), magnitude = bits & 0x7FFFFFFFu, sign = (bits >> 16) & 0x8000u;
    const VecU32 normal = (magnitude - (112u << 23) + 0xFFFu + ((magnitude >> 13) & 1u)) >> 13;
    // below 2^-14 float16 is subnormal: adding 1/2 lets the float unit round to multiples of 2^-24
    const VecU32 subnormal = bit_cast<VecU32>(bit_cast<Vec>(magnitude) + 0.5f) - (126u << 23);
    return (magnitude < (113u << 23) ? subnormal : normal) | sign;
}

inline void decode(const EightBitMoment& moment, Size block, Size begin, Size count, float* values) {
    const float scale = moment.scales[block];
    const float* levels = moment.levels;
    const std::uint8_t* codes = moment.codes + begin;
    for (Size i = 0; i < count; ++i) values[i] = levels[codes[i]];
    for (Size i = 0; i < MOMENT_BLOCK; i += W) store(values + i, load(values + i) * scale);
}

// The scale carries the sign of the largest number, so that its fraction is 1, which is a level, and never -1.
inline void encode(const EightBitMoment& moment, Size block, Size begin, Size count, const float* values) {
    Vec highest = broadcast(values[0]), lowest = highest;
    Size i = 0;
    for (; i + W <= count; i += W) highest = max(highest, load(values + i)), lowest = min(lowest, load(values + i));
    float high = reduce_max(highest), low = -reduce_max(-lowest);
    for (; i < count; ++i) high = std::max(high, values[i]), low = std::min(low, values[i]);
    const float scale = high >= -low ? high : low, factor = scale == 0.0f ? 1.0f : 1.0f / scale;
    moment.scales[block] = scale;
    std::uint32_t bits[MOMENT_BLOCK] = {};
    for (Size j = 0; j < count; j += W) {
        const VecU32 half = half_bits(load(values + j) * factor);
        std::memcpy(bits + j, &half, sizeof half);
    }
    const std::uint8_t* nearest = moment.nearest;
    std::uint8_t codes[MOMENT_BLOCK];
    for (Size j = 0; j < MOMENT_BLOCK; ++j) codes[j] = nearest[bits[j]];
    std::copy_n(codes, count, moment.codes + begin);
}

inline void update_block(float* weights, const float* gradient, float* first, float* second, Size count,
                         const AdamWStep& step) {
    const float size = step.rate / step.correction1, root_factor = 1.0f / step.correction2;
    for_each_vector(count, [&](Size i, int n) {
        const Vec g = load_n(gradient + i, n) * step.gradient_scale;
        Vec m = load(first + i), v = load(second + i);
        m += (1.0f - step.beta1) * (g - m);
        v = v * step.beta2 + (1.0f - step.beta2) * g * g;
        store(first + i, m), store(second + i, v);
        Vec root = v;
        for (int lane = 0; lane < W; ++lane) root[lane] = std::sqrt(v[lane]);
        const Vec w = load_n(weights + i, n) * (1.0f - step.rate * step.weight_decay);
        store_n(weights + i, w - size * m / (root * root_factor + step.eps), n);
    });
}

void adamw_8bit(float* weights, const float* gradient, const EightBitMoment& first, const EightBitMoment& second,
                Size count, const AdamWStep& step) {
    const Size blocks = (count + MOMENT_BLOCK - 1) / MOMENT_BLOCK;
    parallel_for((blocks + TASK_MOMENT_BLOCKS - 1) / TASK_MOMENT_BLOCKS, [&](Size task) {
        float first_values[MOMENT_BLOCK] = {}, second_values[MOMENT_BLOCK] = {};
        const Size end = std::min(blocks, (task + 1) * TASK_MOMENT_BLOCKS);
        for (Size block = task * TASK_MOMENT_BLOCKS; block < end; ++block) {
            const Size begin = block * MOMENT_BLOCK, size = std::min(MOMENT_BLOCK, count - begin);
            decode(first, block, begin, size, first_values), decode(second, block, begin, size, second_values);
            update_block(weights + begin, gradient + begin, first_values, second_values, size, step);
            encode(first, block, begin, size, first_values), encode(second, block, begin, size, second_values);
        }
    });
}

}  // namespace
}  // namespace lmworks::ISA
