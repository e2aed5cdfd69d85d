// Keys and values of one head of a sequence (engine.hpp), whose elements are of type E: appending to them, and attention
// over them. In 8 bits a vector is integers of -127 to 127 and a scale, by which the score of a key, or the weight of a
// value, is multiplied.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "engine_products.inl"

namespace lmworks::ISA {

inline Vec load(const Int8* p) {
    using VecI8 = std::int8_t __attribute__((vector_size(W)));
    VecI8 numbers;
    std::memcpy(&numbers, p, sizeof numbers);
    return __builtin_convertvector(__builtin_convertvector(numbers, VecI32), Vec);
}

namespace {

void store_number(float* p, float value) { *p = value; }
void store_number(Half* p, float value) { p->bits = float_to_half(value); }
void store_number(Int8* p, float value) { p->value = static_cast<std::int8_t>(std::lrint(value)); }

float as_float(float value) { return value; }
float as_float(Half value) { return half_to_float(value.bits); }
float as_float(Int8 value) { return value.value; }

template <class E>
class CachedHead {
public:
    static constexpr bool IS_ROUNDED = !std::is_same_v<E, float>;

    // head: index among the key-value heads of all layers, layer by layer; size: of a vector.
    CachedHead(Sequence& sequence, Size head, Size size)
        : size_(size), stride_(size + SCALE),
          keys_(reinterpret_cast<E*>(sequence.keys.data()) + head * sequence.capacity * stride_),
          values_(reinterpret_cast<E*>(sequence.values.data()) + head * sequence.capacity * stride_) {}

    void append(Size position, const float* key, const float* value) {
        E* tile = keys_ + position / GROUP * GROUP * stride_;
        const Size lane = position % GROUP;
        put(key, tile + lane, GROUP, tile + GROUP * size_ + lane * SCALE);
        E* row = values_ + position * stride_;
        put(value, row, 1, row + size_);
    }

    // Element i of each of the 16 keys from position ``tile`` on, a multiple of 16.
    Lanes key_numbers(Size tile, Size i) const {
        Lanes numbers;
        const E* in = keys_ + tile * stride_;
        for (int part = 0; part < PARTS; ++part) {
            numbers.part[part] = load(in + i * GROUP + part * W);
            if constexpr (HAS_SCALES) numbers.part[part] *= load(reinterpret_cast<const float*>(in + GROUP * size_) + part * W);
        }
        return numbers;
    }

    // W elements of a value from ``column`` on.
    Vec value_numbers(Size position, Size column) const {
        const E* row = values_ + position * stride_;
        const Vec numbers = load(row + column);
        return HAS_SCALES ? numbers * scale_at(row + size_) : numbers;
    }

    // q K^T * factor of HEADS heads and positions first ... last - 1: q (HEADS, size), scores (HEADS, stride), of which the
    // first is that of position first, a multiple of 16; those up to the next multiple of 16 behind last are written too.
    // Keys are read once for all heads.
    template <int HEADS>
    void score(const float* q, Size first, Size last, float factor, float* scores, Size stride) const {
        constexpr Size AT_ONCE = W == 16 ? 4 : 1;  // tiles: as many sums as hide the time that an addition takes
        Size tile = first;
        for (; tile + (AT_ONCE - 1) * GROUP < last; tile += AT_ONCE * GROUP)
            score_tiles<HEADS, AT_ONCE>(q, tile, factor, scores + tile - first, stride);
        for (; tile < last; tile += GROUP) score_tiles<HEADS, 1>(q, tile, factor, scores + tile - first, stride);
    }

    // out (HEADS, size): the sums of the values of positions first ... last - 1 times their weights (HEADS, stride), of which
    // the first is that of position first. Sums stay in registers, and each line of memory is read once.
    template <int HEADS>
    void mix(const float* weights, Size stride, Size first, Size last, float* out) const {
        constexpr int COLUMNS = W == 16 ? 4 : 2;  // vectors
        Size column = 0;
        for (; column + COLUMNS * W <= size_; column += COLUMNS * W)
            mix_columns<HEADS, COLUMNS>(weights, stride, first, last, column, out);
        for (; column + W <= size_; column += W) mix_columns<HEADS, 1>(weights, stride, first, last, column, out);
        for (; column < size_; ++column)
            for (int head = 0; head < HEADS; ++head) {
                float sum = 0.0f;
                for (Size i = first; i < last; ++i) sum += value_number(i, column) * weights[head * stride + i - first];
                out[head * size_ + column] = sum;
            }
    }

    float value_number(Size position, Size column) const {
        const E* row = values_ + position * stride_;
        const float number = as_float(row[column]);
        return HAS_SCALES ? number * scale_at(row + size_) : number;
    }

private:
    static constexpr bool HAS_SCALES = std::is_same_v<E, Int8>;
    static constexpr Size CACHE_AHEAD = WEIGHTS_AHEAD;  // bytes; threads read keys and values of parts that follow one another
    static constexpr Size SCALE = HAS_SCALES ? sizeof(float) : 0;  // elements in whose place a scale lies
    Size size_, stride_;  // elements of a vector, without and with its scale
    E *keys_, *values_;

    template <int HEADS, Size TILES>
    void score_tiles(const float* q, Size tile, float factor, float* scores, Size stride) const {
        Lanes sums[TILES][HEADS] = {};
        const E* in = keys_ + tile * stride_;
        for (Size i = 0; i < size_; ++i)
#pragma GCC unroll 4
            for (Size t = 0; t < TILES; ++t)
#pragma GCC unroll 4
                for (int part = 0; part < PARTS; ++part) {
                    const E* place = in + t * GROUP * stride_ + i * GROUP + part * W;
                    const Vec keys = load(place);
                    __builtin_prefetch(reinterpret_cast<const char*>(place) + CACHE_AHEAD);
#pragma GCC unroll 4
                    for (int head = 0; head < HEADS; ++head) sums[t][head].part[part] += keys * q[head * size_ + i];
                }
        for (Size t = 0; t < TILES; ++t)
            for (int part = 0; part < PARTS; ++part) {
                Vec scale = broadcast(factor);
                if constexpr (HAS_SCALES)
                    scale *= load(reinterpret_cast<const float*>(in + t * GROUP * stride_ + GROUP * size_) + part * W);
                for (int head = 0; head < HEADS; ++head)
                    store(scores + head * stride + t * GROUP + part * W, sums[t][head].part[part] * scale);
            }
    }

    template <int HEADS, int COLUMNS>
    void mix_columns(const float* weights, Size stride, Size first, Size last, Size column, float* out) const {
        Vec sums[HEADS][COLUMNS] = {};
        for (Size i = first; i < last; ++i) {
            const E* row = values_ + i * stride_;
            float factors[HEADS];
#pragma GCC unroll 4
            for (int head = 0; head < HEADS; ++head) {
                factors[head] = weights[head * stride + i - first];
                if constexpr (HAS_SCALES) factors[head] *= scale_at(row + size_);
            }
#pragma GCC unroll 4
            for (int c = 0; c < COLUMNS; ++c) {
                const Vec values = load(row + column + c * W);
                __builtin_prefetch(reinterpret_cast<const char*>(row + column + c * W) + CACHE_AHEAD);
#pragma GCC unroll 4
                for (int head = 0; head < HEADS; ++head) sums[head][c] += values * factors[head];
            }
        }
        for (int head = 0; head < HEADS; ++head)
            for (int c = 0; c < COLUMNS; ++c) store(out + head * size_ + column + c * W, sums[head][c]);
    }

    static float scale_at(const E* place) {
        float scale;
        std::memcpy(&scale, place, sizeof scale);
        return scale;
    }

    // Writes a vector x (size), rounded to E, with its elements ``step`` apart, and its scale.
    void put(const float* x, E* out, Size step, E* scale_place) const {
        float inverse = 1.0f;
        if constexpr (HAS_SCALES) {
            float largest = 0.0f;
            for (Size i = 0; i < size_; ++i) largest = std::max(largest, std::abs(x[i]));
            const float scale = largest / 127.0f;
            std::memcpy(scale_place, &scale, sizeof scale);
            inverse = largest > 0.0f ? 127.0f / largest : 0.0f;
        }
        for (Size i = 0; i < size_; ++i) store_number(out + i * step, x[i] * inverse);
    }
};

}  // namespace
}  // namespace lmworks::ISA
